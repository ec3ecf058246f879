"""Files of the data that change at any moment of a run."""

from __future__ import annotations

import random
import shutil

import pytest

from helpers.kinds_of_data import FEATURES, IMAGES
from helpers.small_job import contents, finished, run, write
from lc_engine.data.faults import DataChangedError, ReadError


def other_values(kind, data, rng):
    write(kind, data, seed=rng.randrange(1, 100))


def other_width(kind, data, rng):
    write(kind, data, seed=1, width=rng.randrange(3, 9))


def a_file(data, rng):
    return rng.choice(sorted(path for path in data.rglob("*") if path.is_file()))


def truncated(kind, data, rng):
    file = a_file(data, rng)
    file.write_bytes(file.read_bytes()[: rng.randrange(1, 60)])


def emptied(kind, data, rng):
    a_file(data, rng).write_bytes(b"")


def deleted(kind, data, rng):
    a_file(data, rng).unlink()


def touched(kind, data, rng):
    a_file(data, rng).touch()


CHANGES = [other_values, other_width, truncated, emptied, deleted, touched]


@pytest.mark.parametrize("kind", [*FEATURES, *IMAGES])
def test_a_file_that_changes(tmp_path, tally, many, kind, monkeypatch):
    monkeypatch.setattr("lc_engine.data.faults.PAUSES", (0.0, 0.0, 0.0))
    kept, data = tmp_path / "kept", tmp_path / "data"
    data.mkdir()
    write(kind, data)
    shutil.copytree(data, kept)
    calls = []
    run(kind, data, tmp_path / "undisturbed", lambda *_: calls.append(1))
    want, table = contents(tmp_path / "undisturbed"), finished(tmp_path / "undisturbed")
    rng = random.Random(kind)
    for attempt in range(36 if many else 2):
        change, moment = CHANGES[attempt % len(CHANGES)], rng.randrange(len(calls))
        out, seen = tmp_path / f"out{attempt}", []

        def at(*_, change=change, moment=moment, seen=seen):
            if len(seen) == moment:
                change(kind, data, rng)
            seen.append(1)

        outcome, text = "undisturbed", str(data)
        try:
            run(kind, data, out, at)
        except (DataChangedError, ReadError) as error:
            outcome, text = "error", str(error)
        assert str(data) in text
        tally.add("a file that is written anew, cut, emptied, deleted or touched", outcome)
        assert finished(out) in (None, table)
        shutil.rmtree(data)
        shutil.copytree(kept, data)
        run(kind, data, out)
        assert contents(out) == want
