"""Data that change while they are read are noticed, and the file is named."""

from __future__ import annotations

import os
import shutil

import pytest

from helpers.kinds_of_data import FEATURES, IMAGES, PLACES, ROWS, opened, write
from lc_engine.data.faults import DataChangedError, ReadError
from lc_engine.data.identity import FileStates, check_unchanged
from lc_engine.data.open import open_source
from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.subset import Subset


def a_file(kind, folder):
    place = folder / PLACES[kind]
    return sorted(place.rglob("*.bmp"))[7] if kind == "folder" else place


@pytest.mark.parametrize("kind", [*FEATURES, *IMAGES])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: CachedSource(Subset.first(s, ROWS), 99)])
def test_a_file_that_is_written_again_is_named(tmp_path, kind, wrap):
    write(kind, tmp_path)
    source = opened(kind, tmp_path)
    wrapped, digest = wrap(source), source.digest()
    check_unchanged(wrapped)
    write(kind, tmp_path, seed=1)
    with pytest.raises(DataChangedError, match=r"has changed since.*the same command") as why:
        check_unchanged(wrapped)
    assert str(tmp_path) in str(why.value)
    assert source.digest() == digest, "of what the run has read"
    assert opened(kind, tmp_path).digest() != digest


@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_also_where_size_and_time_of_writing_are_what_they_were(tmp_path, kind):
    write(kind, tmp_path)
    source, file = opened(kind, tmp_path), a_file(kind, tmp_path)
    before = file.stat()
    file.write_bytes(bytes(reversed(file.read_bytes())))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(DataChangedError, match="time of change"):
        check_unchanged(source)


def test_only_the_files_of_the_rows_are_compared(tmp_path):
    write("folder", tmp_path)
    source = opened("folder", tmp_path)
    file = a_file("folder", tmp_path)
    row = source.paths.index(str(file.relative_to(tmp_path / "images")))
    file.write_bytes(b"other")
    check_unchanged(source, range(row))
    check_unchanged(source, range(row + 1, ROWS))
    with pytest.raises(DataChangedError, match=file.name):
        check_unchanged(source, range(row, row + 1))


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_of_several_files_those_that_hold_the_rows(tmp_path, kind):
    write(kind, tmp_path)
    first = tmp_path / PLACES[kind]
    second = first.with_name(f"y.{kind}")
    shutil.copy(first, second)
    options = {"transform": lambda picture: None} if kind == "tar" else {}
    source = open_source(tmp_path, **options)
    assert len(source) == 2 * ROWS
    second.touch()
    check_unchanged(source, range(ROWS))
    for rows in (range(ROWS - 1, ROWS + 1), range(2 * ROWS - 1, 2 * ROWS), range(2 * ROWS)):
        with pytest.raises(DataChangedError, match=second.name):
            check_unchanged(source, rows)


def test_a_file_that_vanished_cannot_be_read(tmp_path):
    write("npy", tmp_path)
    source = opened("npy", tmp_path)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(ReadError, match=r"x\.npy cannot be read: No such file"):
        check_unchanged(source)


def test_a_link_to_nothing_that_finds_its_file_has_changed(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    states = FileStates.of([link])
    assert states.is_dangling(0)
    states.check()
    (tmp_path / "target").write_text("there")
    with pytest.raises(DataChangedError):
        states.check()
    assert not FileStates.of([link]).is_dangling(0)


def test_arrays_and_the_users_sources_are_taken_as_unchanged():
    class Bare:
        def __len__(self):
            return 3

    check_unchanged(Bare())
