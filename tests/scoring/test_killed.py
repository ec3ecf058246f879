"""Runs that end at any moment, and what their folders hold after they went on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.feature_run import contents, run, write_features

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.feature_run import run
largest = int(sys.argv[4])
if largest:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
print("ready", flush=True)
run(Path(sys.argv[2]), sys.argv[3], shard_rows=int(sys.argv[5]))
"""
SHARD_ROWS = 5


def child(folder, out, *, largest=0, shard_rows=SHARD_ROWS):
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, tests, str(folder), str(out), str(largest), str(shard_rows)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def seconds_of_a_run(folder, out):
    """How long a child takes from "ready" to its end."""
    with child(folder, out) as process:
        assert process.stdout.readline() == b"ready\n"
        began = time.monotonic()
        assert process.wait() == 0
        return time.monotonic() - began


def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path):
    write_features(tmp_path)
    seconds = seconds_of_a_run(tmp_path, tmp_path / "undisturbed")
    moments = [random.random() * seconds / 3 for _ in range(3)]
    for moment in moments:
        with child(tmp_path, tmp_path / "out") as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moment)
            process.kill()
    run(tmp_path, tmp_path / "out", shard_rows=SHARD_ROWS)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed"), f"{moments=}"


def test_a_disk_that_takes_no_more_ends_the_run_which_then_continues(tmp_path):
    """The system itself refuses to let a file grow: half a part has been written by then."""
    write_features(tmp_path)
    run(tmp_path, tmp_path / "undisturbed", shard_rows=400)
    whole = (tmp_path / "undisturbed" / "part-00000-of-00003.parquet").stat().st_size
    with child(tmp_path, tmp_path / "out", largest=whole // 2, shard_rows=400) as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert b"OSError: [Errno 27]" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_manifest.json"]
    run(tmp_path, tmp_path / "out", shard_rows=400)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
