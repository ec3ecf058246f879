"""Errors of the system are nobody's fault for a while, then the run's, and never a row's."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from helpers.failing_reads import failing_reads
from helpers.kinds_of_data import FEATURES, IMAGES, opened, write
from helpers.reading import assert_same, read_rows
from lc_engine.data.faults import (
    PAUSES,
    ConfigurationError,
    Fault,
    ReadError,
    describe_error,
    fault_of,
    out_of_memory,
    patiently,
    resumed,
)
from lc_engine.data.open import open_source

PASSING = [
    errno.EIO, errno.ENOENT, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE
]  # fmt: skip


def system_error(number, path="x"):
    return OSError(number, os.strerror(number), str(path))


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("kind", [*FEATURES, *IMAGES])
def test_a_passing_error_leaves_no_trace(tmp_path, kind, number):
    write(kind, tmp_path)
    want = read_rows(opened(kind, tmp_path), 4)
    source = opened(kind, tmp_path)
    with failing_reads(tmp_path, number, times=2) as failed:
        assert_same(read_rows(source, 4), want)
        assert len(failed) == 2


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
@pytest.mark.parametrize("kind", [*FEATURES, *IMAGES])
def test_an_error_that_stays_ends_the_run_by_the_name_of_the_file(tmp_path, kind, number):
    write(kind, tmp_path)
    source = opened(kind, tmp_path, **({"num_workers": 0} if kind in IMAGES else {}))
    with (
        failing_reads(tmp_path, number, times=10**9) as failed,
        pytest.raises(ReadError, match=f"{os.strerror(number)}.*the same command continues") as why,
    ):
        read_rows(source, 4)
    assert str(failed[0]) in str(why.value)
    assert len(failed) % (len(PAUSES) + 1) == 0, "two where a block is read ahead"


@pytest.mark.parametrize("kind", [*FEATURES, *IMAGES])
def test_a_file_that_cannot_be_opened_now_is_not_left_out(tmp_path, kind):
    write(kind, tmp_path)
    with failing_reads(tmp_path, errno.EIO, times=3):
        source = opened(kind, tmp_path)
    assert "refused" not in source.describe()
    with failing_reads(tmp_path, errno.EIO, times=10**9), pytest.raises(ReadError):
        read_rows(opened(kind, tmp_path), 4)


def test_what_fails_in_the_middle_is_read_on_from_there():
    def read(done):
        for item in range(done, 10):
            if item in breaks:
                breaks.discard(item)
                raise system_error(errno.EIO)
            yield item

    breaks = {0, 3, 4, 5, 6, 7}
    assert list(resumed(read, "x")) == list(range(10))
    assert not breaks


def test_patience_ends():
    tried = []

    def read():
        tried.append(1)
        raise TimeoutError  # of a network, without a number

    with pytest.raises(ReadError, match=r"x/y cannot be read: TimeoutError.*tried 4 times"):
        patiently(read, "x/y")
    assert len(tried) == 4


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError("image file is truncated"), Fault.ROW),
        (ValueError("no label"), Fault.ROW),
        (system_error(errno.ELOOP), Fault.ROW),
        (system_error(errno.EISDIR), Fault.ROW),
        (system_error(errno.EIO), Fault.PASSING),
        (ConnectionResetError(), Fault.PASSING),
        (MemoryError(), Fault.RUN),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Fault.RUN),
        (torch.OutOfMemoryError("CUDA out of memory"), Fault.RUN),
        (ConfigurationError("transform"), Fault.RUN),
    ],
)
def test_whose_fault(error, fault):
    assert fault_of(error) is fault
    assert out_of_memory(error) == (fault is Fault.RUN and not isinstance(error, ValueError))


def test_a_file_that_was_never_there_is_missing_for_good_unless_its_folder_is_too(tmp_path):
    missing = system_error(errno.ENOENT, tmp_path / "1.png")
    assert fault_of(missing, listed=False) is Fault.ROW
    assert fault_of(missing) is Fault.PASSING
    unmounted = system_error(errno.ENOENT, tmp_path / "mount" / "1.png")
    assert fault_of(unmounted, listed=False) is Fault.PASSING


class Files(torch.utils.data.Dataset):
    """Rows in files of their own, as a data set of the user's has them."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 5

    def __getitem__(self, row):
        with open(self.folder / f"{row}.txt") as file:  # noqa: PTH123
            return torch.tensor([float(file.read())]), 0


def test_the_users_data_set_is_read_by_the_same_rule(tmp_path):
    for row in range(5):
        (tmp_path / f"{row}.txt").write_text(str(row))
    (tmp_path / "3.txt").unlink()
    (tmp_path / "4.txt").write_text("four")
    source = open_source(Files(tmp_path), num_workers=0)
    with failing_reads(tmp_path, errno.EIO, times=0):
        assert [row[3] for row in read_rows(source, 2)] == ["ok"] * 3 + ["unreadable"] * 2
    source = open_source(Files(tmp_path), num_workers=0)
    opened_by_name = Files.__getitem__

    def failing(self, row):
        if row == 1:
            raise system_error(errno.EIO)
        return opened_by_name(self, row)

    Files.__getitem__ = failing
    try:
        with pytest.raises(ReadError, match="x cannot be read: Input/output error"):
            read_rows(source, 2)
    finally:
        Files.__getitem__ = opened_by_name


def test_an_error_as_text_is_one_line_and_the_same_in_every_process():
    error = ValueError("<Row object at 0x7f00>\n is \udce9 bad")
    assert describe_error(error) == "ValueError: <Row object> is \\udce9 bad"
