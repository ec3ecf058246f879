from __future__ import annotations

import threading

import pytest

from lc_engine._util.atomic_write import atomic_write, atomic_write_text, write_once


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
