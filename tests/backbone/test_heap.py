"""What a forward frees stays with the process while it is kept, and goes back afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lc_engine.backbone import heap

# Blocks of 300 MiB come from the system each time, in the usual state.
SCRIPT = """
import resource, sys
import numpy as np
from lc_engine.backbone.heap import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.empty(75 << 20, np.float32).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


usual = faults()
with kept_memory():
    with kept_memory():
        faults()
    kept = faults()
print(usual, kept, faults())
"""


def counted(**environment: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]


needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="no glibc, or it is set already")


@needs_glibc
def test_memory_is_cleared_once_only_while_it_is_kept() -> None:
    usual, kept, after = counted()
    # Huge pages may make few faults of many; none at all is what keeping means.
    assert usual > 20
    assert kept < usual / 10
    assert after > usual / 2


@needs_glibc
def test_an_allocator_that_was_set_stays_as_it_is() -> None:
    usual, kept, after = counted(MALLOC_MMAP_THRESHOLD_="1000000")
    assert min(kept, after) > usual / 2


def test_those_inside_are_counted_and_errors_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, name: int, value: int) -> None:
            calls.append((name, value))

    def fail() -> None:
        with heap.kept_memory():
            assert dict(calls) == heap._KEEPING
            with heap.kept_memory():
                pass
            assert len(calls) == 2
            raise RuntimeError("within")

    monkeypatch.setattr(heap, "_glibc", Library)
    with pytest.raises(RuntimeError, match="within"):
        fail()
    assert dict(calls[2:]) == heap._AFTERWARDS
    assert heap._keeping == 0
