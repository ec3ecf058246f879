"""A run whose template is dated, begun on one day and continued on the next."""

from __future__ import annotations

import json
import pickle
from datetime import datetime

import numpy as np
import pytest

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.cli import main as cli
from lc_engine.language import scorer as module
from lc_engine.language.rendering import clock

DATED = "Today is {{ strftime_now('%d %B %Y') }}." + tiny.TEMPLATE
PATH = lc.LearningPath.explicit([1.0, 0.7])
ROWS = tiny.random_rows(np.random.default_rng(7), 12)


@pytest.fixture
def on(monkeypatch):
    """Sets the day that is today."""

    def day(number):
        class Fixed(datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2026, 7, number, 12, 0)

        monkeypatch.setattr(module, "datetime", Fixed)
        monkeypatch.setattr(clock, "datetime", Fixed)

    return day


def scorer(template=DATED, **options):
    return lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer(template), path=PATH, **options)


class KilledError(Exception):
    pass


def killed_after(rows):
    def progress(phase, done, total):
        if done >= rows:
            raise KilledError

    return progress


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


@pytest.mark.slow
def test_a_run_that_is_continued_on_the_next_day_equals_the_undisturbed_one(on, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    on(26)
    options = {"shard_rows": 4, "batch_size": 4}
    whole = lc.score(scorer(), data, tmp_path / "whole", **options)
    with pytest.raises(KilledError):
        lc.score(scorer(), data, tmp_path / "out", progress=killed_after(6), **options)
    assert 0 < len(contents(tmp_path / "out")) < 3
    on(27)
    continued = lc.score(scorer(), data, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert continued.metadata["head"]["template_time"] == "2026-07-26"
    other = lc.score(scorer(), data, tmp_path / "other", **options)
    assert other.metadata["head"]["template_time"] == "2026-07-27"
    assert not np.array_equal(other.column("loss"), whole.column("loss"))
    # The moment of a run can be given.
    again = lc.score(scorer(template_time="2026-07-26"), data, tmp_path / "again", **options)
    assert np.array_equal(again.column("loss"), whole.column("loss"))
    assert again.metadata["head"] == whole.metadata["head"]
    with pytest.raises(ValueError, match="template_time"):
        lc.score(scorer(template_time="2026-07-25"), data, tmp_path / "out", **options)


def test_a_template_without_a_date_is_the_same_on_two_days(on):
    on(26)
    first = scorer(tiny.TEMPLATE).describe()
    on(27)
    assert scorer(tiny.TEMPLATE).describe() == first


def test_time_stands_still_in_a_scorer_and_its_copies(on):
    on(26)
    made = lc.Scorer.for_causal_lm("somewhere")
    on(27)
    assert pickle.loads(pickle.dumps(made)).began == made.began == "2026-07-26T12:00:00"


def test_data_that_were_opened_on_another_day_are_refused(on, tmp_path):
    on(26)
    first = scorer()
    source = first.transform.open_source(ROWS)
    lc.score(first, source, tmp_path / "out")
    on(27)
    later = scorer()
    with pytest.raises(
        ValueError, match=r"opened at 2026-07-27 and the run was begun at 2026-07-26"
    ):
        lc.score(later, later.transform.open_source(ROWS), tmp_path / "out")


def test_the_command_continues_on_the_next_day(on, tmp_path, monkeypatch):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer(DATED).save_pretrained(tmp_path / "model")
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    arguments = ["score", "--model", str(tmp_path / "model"), "--data", str(data)]
    arguments += ["--out", str(tmp_path / "out"), "--path", "explicit:1.0", "--dtype", "float32"]
    on(26)
    assert cli.run(arguments) == 0
    before = contents(tmp_path / "out")
    next((tmp_path / "out").glob("part-*")).unlink()
    on(27)
    assert cli.run(arguments) == 0
    assert contents(tmp_path / "out") == before
