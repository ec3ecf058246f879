"""TextScorer, by which other frameworks score the rows that they hold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import lc_engine as lc
from lc_engine.integrations.fields import score_fields
from lc_engine.integrations.texts import TextScorer
from lc_engine.language.scorer import CausalLMScorer

PATH = "gauss:2:0.7:1.0"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, llama):
    """The tiny Llama, and one with other weights."""
    model, tokenizer = llama
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    found = []
    for one in (model, other):
        found.append(tmp_path_factory.mktemp("model"))
        one.save_pretrained(found[-1])
        tokenizer.save_pretrained(found[-1])
    return found


@pytest.fixture(scope="module")
def scorer(folders):
    return TextScorer(str(folders[0]), PATH, dtype="float32")


def test_each_number_of_rows_gets_the_scores_of_a_run(scorer, llama, talk):
    direct = lc.score(CausalLMScorer(*llama, path=lc.LearningPath.parse(PATH)), talk[:4])
    for rows in (1, 4):
        found = scorer.score(talk[:rows])
        np.testing.assert_allclose(found.scores.lc, direct.column("lc")[:rows], rtol=1e-4)


def test_no_row_has_no_score(scorer):
    found = scorer.score([])
    assert len(found.status) == 0
    assert found.scores.lc.shape == (0,)
    assert list(score_fields(found)) == []


def test_bad_rows_alone_have_a_status_each(scorer):
    rows = [{"prompt": "a", "completion": ""}, {"prompt": None, "completion": None}]
    fields = list(score_fields(scorer.score(rows)))
    assert fields == [
        {"lc": None, "loss": None, "lc_status": "empty_response"},
        {"lc": None, "loss": None, "lc_status": "missing_field"},
    ]


def test_the_digest_is_of_model_path_form_and_row(scorer, folders, talk):
    same = TextScorer(str(folders[0]), PATH, dtype="float32")
    assert same.digest(talk[0]) == scorer.digest(dict(reversed(talk[0].items())))
    others = [
        TextScorer(str(folders[1]), PATH, dtype="float32"),
        TextScorer(str(folders[0]), "gauss:2:0.6:1.0", dtype="float32"),
        TextScorer(str(folders[0]), PATH, dtype="bfloat16"),
        TextScorer(str(folders[0]), PATH, "prompt_completion", dtype="float32"),
    ]
    digests = [one.digest(talk[0]) for one in (scorer, *others)] + [scorer.digest(talk[1])]
    assert len(set(digests)) == len(digests)
