"""Real processes of `lc-engine score`, alone and in pairs, that are killed at any moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.feature_run import contents

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

ROWS, WIDTH, CLASSES = 1600, 12, 5
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Return a function that starts the job, its undisturbed folder, and the seconds it took."""
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((ROWS, WIDTH)).astype(np.float32))
    np.save(folder / "y.npy", rng.integers(0, CLASSES, ROWS))
    weight = torch.from_numpy(rng.standard_normal((CLASSES, WIDTH)).astype(np.float32))
    head = {"fc.weight": weight, "fc.bias": torch.zeros(CLASSES)}
    save_file(head, folder / "head.safetensors")

    def start(out):
        options = f"score --model {folder}/head.safetensors --data {folder}/x.npy --batch-size 20"
        options += f" --labels {folder}/y.npy --shard-rows 20 --out {out}"
        code = "from lc_engine.cli.main import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *options.split()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # A shell's background job ignores Ctrl-C, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    began = time.monotonic()
    finish(start(folder / "undisturbed"))
    return start, folder / "undisturbed", time.monotonic() - began


def finish(process):
    """Wait until a process has ended well."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def kill_at(process, seconds, number):
    """Send a signal after so many seconds; return "killed", or "undisturbed" if it had ended."""
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate()
    assert b"Traceback" not in errors or number == signal.SIGINT, errors.decode()
    return "undisturbed" if process.returncode == 0 else "killed"


def scores(folder):
    """Return all that a run leaves, but for the options, which name the folder."""
    found = contents(folder)
    return {name: found[name] for name in found if not name.endswith("config.json")}


def parts(folder):
    return {name: found for name, found in contents(folder).items() if name.endswith(".parquet")}


def test_a_process_that_is_killed(tmp_path, tally, many, job):
    start, undisturbed, seconds = job
    rng = random.Random(0)
    want = scores(undisturbed)
    out = tmp_path / "out"
    for attempt in range(30 if many else 2):
        number = SIGNALS[attempt % len(SIGNALS)]
        process = start(out)
        outcome = kill_at(process, rng.uniform(0.3, 1.0) * seconds, number)
        tally.add(f"{number.name} of a process at a random moment", outcome)
        if out.exists():
            assert parts(out).items() <= parts(undisturbed).items()
        if outcome == "undisturbed" or attempt % 5 == 4:  # continue from here, or begin anew
            finish(start(out))
            assert scores(out) == want
            shutil.rmtree(out)
    finish(start(out))
    assert scores(out) == want


def test_two_processes_of_which_one_is_killed(tmp_path, tally, many, job):
    start, undisturbed, seconds = job
    rng = random.Random(1)
    for attempt in range(8 if many else 1):
        out = tmp_path / str(attempt)
        one, two = start(out), start(out)
        outcome = kill_at(one, rng.uniform(0.5, 1.2) * seconds, signal.SIGKILL)
        tally.add("SIGKILL of one of two processes in one folder", outcome)
        finish(two)
        assert scores(out) == scores(undisturbed)
