from __future__ import annotations

import json

import numpy as np
import pytest

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.data.wrap.subset import Subset

PATH = lc.LearningPath.explicit([1.0, 0.6])
PROMPT = [{"role": "user", "content": "hello?"}]
SAID = [("hello there", "no"), ("in the", "tell"), ("a", "bell, hell"), ("in", "in")]


def answer(text):
    return [{"role": "assistant", "content": text}]


ROWS = [{"prompt": PROMPT, "chosen": answer(a), "rejected": answer(b)} for a, b in SAID]


@pytest.fixture(scope="module")
def scorer():
    return lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer(), path=PATH, ifd=True)


@pytest.fixture(scope="module")
def table(scorer):
    return lc.score(scorer, ROWS, return_path=True)


def test_both_responses_have_the_scores_of_plain_rows(scorer, table):
    for side, column in enumerate(("chosen", "rejected")):
        rows = [{"messages": [*PROMPT, *answer(pair[side])]} for pair in SAID]
        plain = lc.score(scorer, rows, return_path=True)
        for name in ("lc", "loss"):
            np.testing.assert_allclose(
                table.column(f"{name}_{column}"), plain.column(name), rtol=1e-5
            )
        suffix = "_rejected" if side else ""
        for name in ("perplexity", "entropy", "token_count", "ifd"):
            np.testing.assert_allclose(
                table.column(name + suffix), plain.column(name), rtol=1e-4, err_msg=name
            )
        if not side:
            for name in ("lc", "loss", "lc_std", "path_log_probs"):
                np.testing.assert_allclose(table.column(name), plain.column(name), rtol=1e-4)
    margin = table.column("lc_chosen") - table.column("lc_rejected")
    np.testing.assert_allclose(table.column("margin"), margin, atol=1e-7)
    assert table.column("margin")[3] == pytest.approx(0, abs=1e-6)


def test_a_pair_is_selected_by_any_of_its_columns(table):
    margins = table.column("margin")
    assert table.metadata["direction"]["margin"] == "high = easy"
    easiest = np.sort(np.argsort(-margins)[:2])
    np.testing.assert_array_equal(lc.select(table, 2, "easy", score="margin", by=None), easiest)
    hardest = np.sort(np.argsort(table.column("lc_rejected"))[:1])
    np.testing.assert_array_equal(
        lc.select(table, 1, "hard", score="lc_rejected", by=None), hardest
    )


def test_a_pair_of_which_one_response_fails_has_the_status_of_it(scorer):
    rows = [
        {"prompt": PROMPT, "chosen": answer("a"), "rejected": answer("")},
        {"prompt": PROMPT, "chosen": answer("a")},
        *ROWS[:1],
    ]
    for batch_size in (1, 3):
        table = lc.score(scorer, rows, form="preference", batch_size=batch_size)
        assert list(table.column("status")) == ["empty_response", "missing_field", "ok"]
        assert table.column("detail")[0].startswith("row 0: rejected: ")
        assert table.column("detail")[1].startswith("row 1: the row lacks rejected")
        assert np.isnan(table.column("margin")).tolist() == [True, True, False]


def test_a_run_of_pairs_continues_in_its_folder_and_is_written_back(scorer, table, tmp_path):
    from lc_engine.integrations.files import write_subset

    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = lc.score(scorer, data, tmp_path / "scores", shard_rows=2)
    # Two rows a batch instead of all: equal up to rounding.
    np.testing.assert_allclose(found.column("margin"), table.column("margin"), atol=1e-7)
    keep = lc.select(tmp_path / "scores", 2, "easy", score="margin", by=None)
    assert write_subset(data, keep, tmp_path / "kept.jsonl") == 2
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert kept == [ROWS[i] for i in keep]


def test_some_of_the_pairs_are_scored_as_in_the_whole(scorer, table):
    source = scorer.transform.open_source(ROWS)
    part = lc.score(scorer, Subset(source, np.array([0, 2, 3])))
    np.testing.assert_allclose(
        part.column("margin"), table.column("margin")[[0, 2, 3]], rtol=1e-4, atol=1e-7
    )
