"""The core's threads are torch's own, and are not missed where a fork has left them behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lc_engine.ops import contract

SCRIPT = """
import os, sys
import numpy as np
import torch
from lc_engine import _native

rng = np.random.default_rng(0)
weight = rng.standard_normal((40, 64), dtype=np.float32)
x, labels = rng.standard_normal((4096, 64), dtype=np.float32), rng.integers(0, 40, 4096)
plan = _native.LinearPlan(weight, None, None, np.zeros(1, np.float32), False)

def run():
    out = np.empty((1, 4096), np.float32)
    plan.run(x, labels, out, 2)
    return out

before = len(os.listdir("/proc/self/task"))
first = run()
again = [run() for _ in range(20)]
assert all(np.array_equal(one, first) for one in again)
assert len(os.listdir("/proc/self/task")) <= before + 1
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(run(), first) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(contract.native() is None, reason="the C++ core was not built")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a call starts threads of its own")
def test_threads_are_kept_between_calls_and_a_forked_child_does_without_them() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
