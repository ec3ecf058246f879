from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lc_engine.data.run.ledger import Ledger
from lc_engine.data.table import ScoreTable

MANIFEST = {"model_digest": "m1", "path": {"capacities": (1.0, 0.5)}, "masking": {"seed": 0}}


def scored(shard, metadata=MANIFEST):
    """Scores that depend only on the row numbers."""
    ids = np.arange(shard.start, shard.stop)
    return ScoreTable.from_arrays(
        ids=ids,
        labels=ids % 3,
        lc=1 / (1 + ids),
        loss=np.log1p(ids),
        lc_std=0 * ids,
        status=["ok"] * len(ids),
        detail=[""] * len(ids),
        metadata=metadata,
    )


def run(folder, rows=100, shard_rows=30, limit=None):
    ledger = Ledger(folder, MANIFEST, rows, shard_rows)
    did = []
    for shard in ledger.pending():
        if len(did) == limit:
            break
        ledger.commit(shard, scored(shard))
        did.append(shard.index)
    return ledger, did


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize(("rows", "total"), [(0, 1), (1, 1), (30, 1), (31, 2), (100, 4)])
def test_a_run_divides_all_rows_into_named_shards(tmp_path, rows, total):
    ledger, did = run(tmp_path / "deep" / "out", rows)
    assert did == list(range(total))
    assert sorted(contents(tmp_path / "deep" / "out")) == [
        "_manifest.json",
        *(f"part-{i:05d}-of-{total:05d}.parquet" for i in range(total)),
    ]
    np.testing.assert_array_equal(ledger.table().column("id"), np.arange(rows))
    assert json.loads((ledger.out_dir / "_manifest.json").read_text())["rows"] == rows


def test_a_stopped_run_continues_and_ends_as_an_undisturbed_one(tmp_path):
    assert run(tmp_path / "a", limit=2)[1] == [0, 1]
    with pytest.raises(ValueError, match="2 of 4 parts: the run has not finished"):
        Ledger(tmp_path / "a", MANIFEST, 100, 30).table()
    assert run(tmp_path / "a", limit=1)[1] == [2]
    assert run(tmp_path / "a")[1] == [3]
    assert run(tmp_path / "a")[1] == []
    run(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_damaged_part_is_redone(tmp_path, damage):
    ledger, _ = run(tmp_path)
    path = ledger.shards[1].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] if damage is None else damage)
    assert run(tmp_path)[1] == [1]
    assert path.read_bytes() == whole


def test_a_part_of_another_length_is_redone(tmp_path):
    ledger, _ = run(tmp_path)
    whole = ledger.shards[1].path.read_bytes()
    scored(ledger.shards[3]).write(ledger.shards[1].path)
    assert run(tmp_path)[1] == [1]
    assert ledger.shards[1].path.read_bytes() == whole


@pytest.mark.parametrize(
    ("manifest", "rows", "shard_rows", "message"),
    [
        ({**MANIFEST, "model_digest": "m2"}, 100, 30, "model_digest: 'm1' -> 'm2'"),
        ({**MANIFEST, "masking": {"seed": 1}}, 100, 30, "masking.seed: 0 -> 1"),
        (
            {**MANIFEST, "path": {"capacities": (1.0, 0.4)}},
            100,
            30,
            r"path.capacities\[1\]: 0.5 -> 0.4",
        ),
        (MANIFEST, 101, 30, "rows: 100 -> 101"),
        (MANIFEST, 100, 31, "shard_rows: 30 -> 31"),
        ({"model_digest": "m1"}, 100, 30, r"masking.seed: 0 -> \(absent\)"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(
    tmp_path, manifest, rows, shard_rows, message
):
    run(tmp_path, limit=1)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        Ledger(tmp_path, manifest, rows, shard_rows)
    assert contents(tmp_path) == before


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        Ledger(tmp_path / "file", MANIFEST, 10)
    run(tmp_path / "out")
    (tmp_path / "out" / "_manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged.*choose another folder"):
        Ledger(tmp_path / "out", MANIFEST, 100, 30)
    (tmp_path / "out" / "_manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no _manifest\.json"):
        Ledger(tmp_path / "out", MANIFEST, 100, 30)
    for rows, shard_rows in ((-1, 3), (5, 0)):
        with pytest.raises(ValueError, match="rows"):
            Ledger(tmp_path / "new", MANIFEST, rows, shard_rows)
    assert not (tmp_path / "new").exists()


def test_a_table_of_another_length_is_refused(tmp_path):
    ledger = Ledger(tmp_path, MANIFEST, 100, 30)
    with pytest.raises(ValueError, match="must hold 30 rows, got a table of 10"):
        ledger.commit(ledger.shards[0], scored(ledger.shards[3]))


def test_a_full_disk_leaves_no_part(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path, MANIFEST, 100, 30)

    def half_written(table, path, **options):
        path.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", half_written)
        with pytest.raises(OSError, match="No space"):
            ledger.commit(ledger.shards[0], scored(ledger.shards[0]))
    assert sorted(contents(tmp_path)) == ["_manifest.json"]
    assert run(tmp_path)[1] == [0, 1, 2, 3]


def test_two_processes_in_one_folder_do_no_harm(tmp_path):
    first, second = (Ledger(tmp_path / "a", MANIFEST, 100, 30) for _ in range(2))
    for one, two in zip(first.shards, second.shards, strict=True):
        second.commit(two, scored(two))
        first.commit(one, scored(one))
    run(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_one_process_cleans_up_while_another_writes(tmp_path, monkeypatch):
    ledger, _ = run(tmp_path)
    write = ScoreTable.write

    def cleared(self, path):
        write(self, path)
        ledger.table()

    monkeypatch.setattr(ScoreTable, "write", cleared)
    ledger.commit(ledger.shards[1], scored(ledger.shards[1]))
    assert len(ledger.table()) == 100


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, f'{{"rows": {"9" * 401}}}', "\xff"])
def test_an_odd_manifest_is_named_with_a_remedy(tmp_path, content):
    run(tmp_path)
    (tmp_path / "_manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"manifest\.json .*choose another folder") as why:
        Ledger(tmp_path, MANIFEST, 100, 30)
    assert len(str(why.value)) < 500


def test_a_run_keeps_the_cut_that_it_was_begun_with(tmp_path):
    chosen = ["batch_rows", "shard_rows"]
    first = Ledger(tmp_path, MANIFEST | {"batch_rows": 8}, 100, 30, chosen=chosen)
    again = Ledger(tmp_path, MANIFEST | {"batch_rows": 16}, 100, 50, chosen=chosen)
    assert again.shards == first.shards
    assert again.manifest == first.manifest
    assert Ledger(tmp_path, MANIFEST, 100, 50, chosen=chosen).manifest["batch_rows"] == 8
    with pytest.raises(ValueError, match="shard_rows: 30 -> 50"):
        Ledger(tmp_path, MANIFEST, 100, 50, chosen=["batch_rows"])
    run(tmp_path / "older")
    older = Ledger(tmp_path / "older", MANIFEST | {"batch_rows": 8}, 100, 30, chosen=chosen)
    assert "batch_rows" not in older.manifest


def test_a_shard_stays_leased_until_it_is_written(tmp_path):
    """Else a process that waits for the last shard scores it again."""
    first, second = (Ledger(tmp_path, MANIFEST, 60, 30) for _ in range(2))
    with first.work() as shards:
        scoring = list(shards_of(shards, 2))
        assert [shard.lease.exists() for shard in scoring] == [True, True]
        waiting = threading.Thread(target=lambda: found.extend(rest(second)))
        found: list[int] = []
        waiting.start()
        first.commit(scoring[0], scored(scoring[0]))
        time.sleep(0.5)
        assert found == []
        first.commit(scoring[1], scored(scoring[1]))
        waiting.join()
    assert found == []


def shards_of(shards, count):
    for _ in range(count):
        yield next(shards)


def rest(ledger):
    """Score what is left, as a process does; return which shards."""
    did = []
    with ledger.work() as shards:
        for shard in shards:
            ledger.commit(shard, scored(shard))
            did.append(shard.index)
    return did


def test_a_process_says_at_once_for_whom_it_waits(tmp_path, caplog):
    ledger = Ledger(tmp_path, MANIFEST, 60, 30)
    for shard, content in zip(ledger.shards, ("", '{"host": "gpu7", "pid": 12}'), strict=True):
        shard.lease.write_text(content)
    waiting = threading.Thread(target=lambda: rest(ledger))
    waiting.start()
    until = time.monotonic() + 5
    while len(caplog.messages) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    for shard in ledger.shards:
        ledger.commit(shard, scored(shard))
    waiting.join()
    assert sorted(caplog.messages) == [
        "waiting for part-00000-of-00002.parquet: its lease is empty; it is taken over in 60 s "
        "unless that changes",
        "waiting for part-00001-of-00002.parquet: process 12 of gpu7 works on it; it is taken over "
        "after 60 s without a sign of life",
    ]


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from test_ledger import run
print("ready", flush=True)
run(sys.argv[2], rows=1000, shard_rows=10)
print("finished", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_random_moments_then_resumed(tmp_path):
    """Every row exactly once, and byte for byte what an undisturbed run writes."""
    here = str(Path(__file__).parent)
    rng = random.Random(0)
    killed = 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, here, str(tmp_path / "a")], stdout=subprocess.PIPE
        )
        with child:
            child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            os.kill(child.pid, signal.SIGKILL)
            killed += child.stdout.read() == b""
    assert killed > 0
    ledger, _ = run(tmp_path / "a", 1000, 10)
    np.testing.assert_array_equal(ledger.table().column("id"), np.arange(1000))
    run(tmp_path / "b", 1000, 10)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
