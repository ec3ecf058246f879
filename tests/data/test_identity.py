"""Data that change while they are read are noticed, and the file is named."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from helpers.kinds_of_data import FEATURES, IMAGES, PLACES, ROWS, opened, write
from lc_engine.data.faults import DataChangedError, ReadError
from lc_engine.data.identity import FileState, FileStates, check_unchanged
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


@pytest.mark.parametrize("names", [1, 2])
@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_a_file_in_its_place_is_noticed_whatever_its_times(tmp_path, kind, names):
    write(kind, tmp_path)
    file = a_file(kind, tmp_path)
    if names == 2:
        os.link(file, tmp_path / "second name")
    source, before = opened(kind, tmp_path), file.stat()
    other = tmp_path / "other"
    other.write_bytes(bytes(reversed(file.read_bytes())))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(DataChangedError, match="replaced by another file"):
        check_unchanged(source)


@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_other_names_and_rights_of_a_file_leave_its_content(tmp_path, kind):
    write(kind, tmp_path)
    file = a_file(kind, tmp_path)
    file.chmod(0o600)
    source = opened(kind, tmp_path)

    def unchanged_after(change):
        before = file.stat().st_ctime_ns
        time.sleep(0.02)  # above the resolution of the clock of file systems
        change()
        assert file.stat().st_ctime_ns > before
        check_unchanged(source)

    unchanged_after(lambda: os.link(file, tmp_path / "second"))
    linked = opened(kind, tmp_path)
    # As another pruning into the same folder does: the number of names is what it was.
    unchanged_after(lambda: os.link(file, tmp_path / "third"))
    unchanged_after((tmp_path / "second").unlink)
    check_unchanged(linked)
    unchanged_after(lambda: file.chmod(0o640))


def test_a_new_number_of_the_same_file_is_no_change():
    """As mounts in user space give one, such as those of buckets."""
    before = FileState(size=3, written=4, changed=5, inode=6, names=1, rights=7)
    assert before.difference(before._replace(inode=8)) is None
    assert before.difference(before._replace(inode=8, changed=9)) == "replaced by another file"


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
