"""Any call of the system may fail: the job ends with an error, and the same job then continues."""

from __future__ import annotations

import sys

import pytest

from helpers.failing_system import tried

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloads a library as Linux does")

# Of so many calls one fails; all of them would take hours.
KINDS = {"npy": 11, "parquet": 13, "folder": 29, "tar": 29, "jsonl": 29}
FEW = {"npy": 120}


@pytest.mark.parametrize("kind", KINDS)
def test_a_system_that_fails_at_any_call(tmp_path, tally, many, kind):
    stride = KINDS[kind] if many else FEW.get(kind)
    if stride is None:
        pytest.skip("make faults")
    found = tried(kind, tmp_path, stride)
    for outcome, times in found["outcomes"].items():
        tally.add(f"EIO, ENOSPC, EACCES at one call, or from it on: {kind}", outcome, times)
    assert found["calls"] > 100
    assert sum(found["outcomes"].values()) > 6
    assert found["outcomes"]["error"] > 0
    assert not found["wrong"]
