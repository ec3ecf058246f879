"""Runs of the command line whose chat template writes the date, over two days."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.cli import main as cli
from lc_engine.data.run.ledger import Ledger
from lc_engine.language import scorer
from lc_engine.language.rendering import clock

EVENING = datetime(2026, 7, 26, 23, 59, 30)
DATED = "Today is {{ strftime_now('%d %B %Y') }}.\n" + tiny.TEMPLATE
NUMBERS = ("lc", "loss", "lc_std", "perplexity", "entropy", "token_count")


@pytest.fixture
def at(monkeypatch):
    """Set the clock of the machine."""

    def set_to(moment):
        class Faked(datetime):
            @classmethod
            def now(cls, tz=None):
                return moment

        for module in (scorer, clock):
            monkeypatch.setattr(module, "datetime", Faked)

    return set_to


@pytest.fixture
def run(folder, tmp_path):
    """Score 6 rows in files of 2, into a folder of this name."""
    rows = tiny.random_rows(np.random.default_rng(4), 6)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "dated.jinja").write_text(DATED)

    def score(name):
        data = ("--model", str(folder), "--data", str(tmp_path / "rows.jsonl"))
        how = ("--chat-template", str(tmp_path / "dated.jinja"), "--path", "explicit:1.0")
        out = tmp_path / name
        assert cli.run(["score", *data, *how, "--shard-rows", "2", "--out", str(out)]) == 0
        return out

    return score


@pytest.mark.slow
def test_a_run_that_is_killed_and_continued_the_next_day_equals_the_undisturbed_one(
    at, run, tmp_path, monkeypatch
):
    at(EVENING)
    undisturbed = run("undisturbed")
    commit = Ledger.commit

    class KilledError(BaseException):
        """Nothing of the package catches it, as nothing can catch a SIGKILL."""

    def killed(self, shard, *rest):
        if shard.index:
            raise KilledError
        commit(self, shard, *rest)

    monkeypatch.setattr(Ledger, "commit", killed)
    with pytest.raises(KilledError):
        run("killed")
    monkeypatch.setattr(Ledger, "commit", commit)
    assert len(list((tmp_path / "killed").glob("part-*"))) == 1
    at(EVENING + timedelta(minutes=1))
    continued, another = run("killed"), run("of the next day")
    for part in sorted(undisturbed.glob("part-*")):
        assert (continued / part.name).read_bytes() == part.read_bytes()
    manifests = [
        json.loads((out / "_manifest.json").read_text())
        for out in (undisturbed, continued, another)
    ]
    assert manifests[0] == manifests[1] != manifests[2]
    # The date does reach the scores.
    first, last = (lc.ScoreTable.read(out) for out in (undisturbed, another))
    assert first.column("lc").tolist() != last.column("lc").tolist()


def test_two_runs_of_a_day_are_equal_at_any_hour(at, run):
    tables = []
    for hour in (1, 23):
        at(EVENING.replace(hour=hour))
        tables.append(lc.ScoreTable.read(run(f"at {hour}")))
    for name in NUMBERS:
        np.testing.assert_array_equal(*(table.column(name) for table in tables))
    assert tables[0].metadata == tables[1].metadata


@pytest.mark.parametrize("template", [tiny.TEMPLATE, DATED], ids=["undated", "dated"])
def test_a_run_is_described_by_its_day_only_if_the_template_asks_for_it(at, template):
    found = []
    for days in (0, 1):
        at(EVENING + timedelta(days=days))
        scorer = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer(), chat_template=template)
        found.append(scorer.describe())
    assert (found[0] == found[1]) == (template == tiny.TEMPLATE)
