"""Clocks that are off, jump or run backwards, here and on the machine that shares the folder."""

from __future__ import annotations

import json
import os
import random
import threading
import time

import pytest

from helpers.small_job import contents, run, write
from lc_engine.data.run import leases

DECADE = 315_576_000.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(leases.Leases.__init__, "__defaults__", (0.2,))
    (tmp_path / "data").mkdir()
    write("npy", tmp_path / "data")
    run("npy", tmp_path / "data", tmp_path / "undisturbed")
    return tmp_path


def test_the_clock_of_this_machine(folder, tally, many, monkeypatch):
    rng, clock = random.Random(0), time.time
    for attempt in range(60 if many else 3):
        offset = [0.0]

        def jumping(offset=offset):
            offset[0] = rng.uniform(-DECADE, DECADE)
            return clock() + offset[0]

        with monkeypatch.context() as patch:
            patch.setattr(time, "time", jumping)
            run("npy", folder / "data", folder / f"out{attempt}")
        assert contents(folder / f"out{attempt}") == contents(folder / "undisturbed")
        tally.add("a clock that jumps by decades", "undisturbed")


def test_the_clock_of_the_machine_that_left_a_lease(folder, tally, many):
    """Its lease bears any date, and is renewed by a clock that runs backwards for a while."""
    rng = random.Random(1)
    for attempt in range(40 if many else 2):
        out = folder / f"out{attempt}"
        out.mkdir()
        lease = out / f"part-{attempt % 3:05d}-of-00003.lease"
        lease.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
        date = time.time() + rng.uniform(-DECADE, DECADE)
        os.utime(lease, (date, date))

        def renew(lease=lease, date=date):
            for beat in range(5):
                time.sleep(0.03)
                if lease.exists():
                    os.utime(lease, (date - beat, date - beat))

        beating = threading.Thread(target=renew)
        # The manifest first: a folder of leases alone is not a run's.
        beating.start()
        run("npy", folder / "data", out)
        beating.join()
        assert contents(out) == contents(folder / "undisturbed")
        tally.add("a lease of a machine whose clock is off by years", "undisturbed")
