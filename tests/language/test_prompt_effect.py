from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers import tiny_language_model as tiny

# Differences of two NLLs of about 5 in float32, exponentiated.
CLOSE = 5e-5
WHOLE = lc.LearningPath.explicit([1.0])
NAMES = ("ifd", "ifd_ppl", "mean_delta")


@pytest.fixture(scope="module")
def rows():
    return tiny.random_rows(np.random.default_rng(5), 14)


def token_nll(model, ids):
    """NLL (T − 1,) of every token but the first, float64, from full logits."""
    ids = torch.from_numpy(np.asarray(ids))
    with torch.no_grad():
        log_p = model(ids[None]).logits[0].double().log_softmax(-1)
    return -log_p[:-1].gather(1, ids[1:, None])[:, 0].numpy()


def plain(model, tokens, start):
    """The three scores of one row, in the formulas' own order."""
    response = tokens.ids[tokens.response]
    prompted = token_nll(model, tokens.ids)[np.flatnonzero(tokens.response) - 1]
    alone = token_nll(model, [start, *response])
    delta = prompted - alone
    largest = sorted(delta, key=abs, reverse=True)[: -(-len(delta) // 2)]
    return (
        prompted.mean() / alone.mean(),
        np.exp(prompted.mean()) / np.exp(alone.mean()),
        np.mean(largest),
    )


@pytest.mark.parametrize("path", [[1.0, 0.6], [0.5]], ids=["with the whole model", "without it"])
@pytest.mark.parametrize("budget", [None, 1], ids=["batches", "a row at a time"])
def test_the_effect_of_the_prompt_agrees_with_a_plain_loop(rows, path, budget):
    model, tokenizer = tiny.model(), tiny.tokenizer()
    scorer = lc.Scorer.for_causal_lm(
        model, tokenizer, path=lc.LearningPath.explicit(path), ifd=True, token_budget=budget
    )
    batch = next(scorer.transform.open_source(rows).batches(len(rows)))
    table = lc.score(scorer, rows)
    expected = [plain(model, one, tokenizer.bos_token_id) for one in batch.inputs]
    for name, right in zip(NAMES, np.transpose(expected), strict=True):
        np.testing.assert_allclose(table.column(name), right, rtol=CLOSE, atol=CLOSE)


def test_a_prompt_that_changes_a_few_tokens_shows_in_mean_delta(rows):
    scorer = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer(), path=WHOLE, ifd=True)
    table = lc.score(scorer, rows)
    overall = np.log(table.column("ifd_ppl"))
    # The largest half by magnitude is further from 0 than the mean of all, where signs agree.
    assert (np.abs(table.column("mean_delta")) >= np.abs(overall) - CLOSE).mean() > 0.7
    assert not np.allclose(table.column("mean_delta"), overall, atol=1e-3)


def test_the_columns_come_on_request_with_their_directions(rows):
    def direction(**options):
        scorer = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer(), path=WHOLE, **options)
        table = lc.score(scorer, rows[:2])
        assert set(table.column_names).isdisjoint({*NAMES} - set(table.metadata["direction"]))
        return table.metadata["direction"]

    assert set(direction()).isdisjoint(NAMES)
    full = direction(ifd=True)
    assert {full[name] for name in NAMES} == {"high = hard"}
