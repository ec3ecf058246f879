from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest

from lc_engine._util.atomic_write import (
    GrowingFile,
    atomic_write,
    atomic_write_npy,
    atomic_write_text,
    write_once,
)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_atomic_write_text_replaces_whole_files(tmp_path):
    atomic_write_text(tmp_path / "config.json", "one")
    atomic_write_text(tmp_path / "config.json", "two")
    assert contents(tmp_path) == {"config.json": "two"}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "config.json"
    atomic_write_text(path, "one")

    def write():
        with atomic_write(path) as temporary:
            temporary.write_text("tw")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert contents(tmp_path) == {"config.json": "one"}


def test_of_many_that_write_once_the_first_wins_and_no_other_file_remains(tmp_path):
    path, start = tmp_path / "manifest.json", threading.Barrier(8)
    seen = []

    def run(number):
        start.wait()
        write_once(path, lambda temporary: temporary.write_text(str(number)))
        seen.append(path.read_text())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert set(seen) == {path.read_text()}
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def write_in_pieces(path):
    file = GrowingFile(path)
    try:
        file.write(b"new")
        file.commit()
    finally:
        file.discard()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: atomic_write_text(path, "new"),
        lambda path: atomic_write_npy(path, np.arange(3)),
        lambda path: write_once(path, lambda temporary: temporary.write_text("new")),
        write_in_pieces,
    ],
    ids=["text", "npy", "once", "pieces"],
)
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, monkeypatch, write, code):
    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"ids\.txt'$"):
        write(tmp_path / "ids.txt")
    assert contents(tmp_path) == {}


def test_a_file_that_another_process_cleaned_up_is_the_one_it_left(tmp_path):
    path = tmp_path / "learnt"

    def write(temporary):
        temporary.write_text("mine")
        path.write_text("theirs")
        temporary.unlink()  # as a process that ends a run does

    write_once(path, write)
    assert path.read_text() == "theirs"
    path.unlink()
    with pytest.raises(FileNotFoundError):  # nobody's file is there
        write_once(path, lambda temporary: None)
