from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lc_engine as lc
from helpers.feature_run import ROWS, WIDTH, contents, run, scorer, write_features
from lc_engine.data.open import open_source
from lc_engine.data.table import ScoreTable


@pytest.mark.parametrize(
    ("kind", "batch_size", "shard_rows"),
    list(itertools.product(("npy", "parquet"), (1, 64, 333, None), (100, 777, None))),
)
def test_scores_do_not_depend_on_how_the_work_is_cut(tmp_path, kind, batch_size, shard_rows):
    x, y = write_features(tmp_path)
    whole = lc.score(scorer(), (x, y))
    cut = run(tmp_path, tmp_path / "out", kind, batch_size=batch_size, shard_rows=shard_rows)
    for name in ("id", "label", "lc", "loss", "lc_std", "status", "detail"):
        np.testing.assert_array_equal(cut.column(name), whole.column(name), err_msg=name)
    assert cut.status_counts() == {"ok": ROWS - 3, "non_finite": 2, "bad_label": 1}


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.feature_run import run
print("ready", flush=True)
run(Path(sys.argv[2]), sys.argv[3], shard_rows=5, batch_size=5)
print("finished", flush=True)
"""


def child(folder, out):
    here = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, here, str(folder), str(out)], stdout=subprocess.PIPE
    )


def holds_a_lease(pid, out):
    for lease in out.glob("part-*.lease"):
        with contextlib.suppress(FileNotFoundError):
            if f'"pid": {pid}}}' in lease.read_text():
                return True
    return False


def test_two_processes_share_a_folder_and_one_of_them_is_killed(tmp_path):
    """Then resumed: byte for byte the folder of an undisturbed run, no lease left behind."""
    write_features(tmp_path)
    run(tmp_path, tmp_path / "undisturbed", shard_rows=5, batch_size=5)
    with child(tmp_path, tmp_path / "out") as one, child(tmp_path, tmp_path / "out") as two:
        for process in (one, two):
            assert process.stdout.readline() == b"ready\n"
        until = time.monotonic() + 60
        while not holds_a_lease(one.pid, tmp_path / "out"):
            assert time.monotonic() < until, "the process never took a shard"
        os.kill(one.pid, signal.SIGKILL)
        assert two.stdout.read() == b"finished\n"
    assert one.returncode == -signal.SIGKILL
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_read_error_in_the_middle_stops_the_run_which_then_continues(tmp_path, monkeypatch):
    from lc_engine.data.readers import arrays

    write_features(tmp_path)
    run(tmp_path, tmp_path / "undisturbed", shard_rows=100)
    read = arrays.read_rows

    def broken(path, mapped, rows, dtype=None):
        if rows.start >= 640:
            raise OSError(5, "Input/output error")
        return read(path, mapped, rows, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "read_rows", broken)
        with pytest.raises(OSError, match="Input/output"):
            run(tmp_path, tmp_path / "out", shard_rows=100, batch_size=16)
    parts = sorted(path.name for path in (tmp_path / "out").glob("part-*"))
    assert parts == [f"part-{i:05d}-of-00010.parquet" for i in range(6)]
    run(tmp_path, tmp_path / "out", shard_rows=100)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_full_disk_stops_the_run_which_then_continues(tmp_path, monkeypatch):
    write_features(tmp_path)
    write, written = ScoreTable.write, []

    def full(self, path):
        if len(written) == 3:
            path.write_bytes(b"PAR1")
            raise OSError(28, "No space left on device")
        written.append(path)
        write(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreTable, "write", full)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, tmp_path / "out", shard_rows=100)
    left = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert left == {".json", ".parquet"}
    table = run(tmp_path, tmp_path / "out", shard_rows=100)
    np.testing.assert_array_equal(table.column("id"), np.arange(ROWS))
    run(tmp_path, tmp_path / "undisturbed", shard_rows=100)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_progress_counts_what_was_done_before(tmp_path):
    write_features(tmp_path)
    out, seen = tmp_path / "out", []
    run(tmp_path, out, shard_rows=100)
    for index in (2, 7):
        (out / f"part-{index:05d}-of-00010.parquet").unlink()
    run(tmp_path, out, shard_rows=100, batch_size=50, progress=lambda *seen_: seen.append(seen_))
    assert seen == [("scores", done, ROWS) for done in (850, 900, 950, 1000)]


def test_a_parquet_file_is_decoded_once_over_all_shards(tmp_path, monkeypatch):
    from lc_engine.data.readers.parquet import ParquetFiles

    write_features(tmp_path)
    decoded = []
    tables = ParquetFiles._group_tables
    monkeypatch.setattr(
        ParquetFiles,
        "_group_tables",
        lambda self, group: decoded.append(group) or tables(self, group),
    )
    source = open_source(tmp_path / "x.parquet")
    assert source.width == WIDTH
    decoded.clear()
    lc.score(scorer(), source, tmp_path / "out", shard_rows=10)
    # The first time for the few rows that the cost of a row, and so the cut, is judged by.
    assert decoded == [0, *range(4)]


@pytest.mark.parametrize("named", [False, True])
def test_ids_of_the_caller(tmp_path, named):
    x, y = write_features(tmp_path)
    ids = [f"row {i}" for i in range(ROWS)] if named else np.arange(ROWS, dtype=np.int32)[::-1]
    own = lc.score(scorer(), (x, y))
    for out in (None, tmp_path / "out"):
        table = lc.score(scorer(), (x, y), out, ids=ids, batch_size=64, shard_rows=100)
        assert table.column("id").tolist() == list(ids)
        np.testing.assert_array_equal(table.column("lc"), own.column("lc"))
    with pytest.raises(ValueError, match="ids_digest"):
        lc.score(scorer(), (x, y), tmp_path / "out", ids=ids[::-1], shard_rows=100)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"] * 3, f"ids must be {ROWS} strings or integers"),
        (np.zeros(ROWS, np.int64), "ids must be distinct"),
        (np.arange(ROWS) / 2, "of float64"),
    ],
)
def test_ids_that_do_not_fit(tmp_path, ids, message):
    with pytest.raises(ValueError, match=message):
        lc.score(scorer(), write_features(tmp_path), ids=ids)


def test_what_opens_the_data_goes_through_score(tmp_path):
    x, y = write_features(tmp_path)
    np.save(tmp_path / "other_x.npy", x)
    np.save(tmp_path / "other_y.npy", y)
    table = lc.score(scorer(), tmp_path / "other_x.npy", labels=tmp_path / "other_y.npy")
    np.testing.assert_array_equal(table.column("lc"), lc.score(scorer(), (x, y)).column("lc"))
    with pytest.raises(ValueError, match="form is for the instruction sets"):
        lc.score(scorer(), (x, y), form="alpaca")
