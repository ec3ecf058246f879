from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import lc_engine as lc


@pytest.fixture(scope="session")
def talk() -> list[dict[str, str]]:
    """120 real questions and answers: prompt and completion."""
    from lc_engine.bench.language_data import conversations

    rows = conversations()[::7][:120]
    return [{"prompt": row["prompt"], "completion": row["response"]} for row in rows]


@pytest.fixture(scope="session")
def llama():
    """A tiny Llama and its tokenizer."""
    from helpers import tiny_language_model as tiny

    return tiny.model(), tiny.tokenizer()


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Real digits of 8 × 8 pixels, (1797, 64) float32 in [0, 1], and their labels."""
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy((x / 16).astype(np.float32)), torch.from_numpy(y.astype(np.int64))


@pytest.fixture(scope="session")
def digit_scores(digits) -> lc.ScoreTable:
    """The digits' scores by a random head, with their paths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = torch.nn.Linear(64, 10)
    path = lc.LearningPath.geometric(6)
    scorer = lc.Scorer(head, head="linear", path=path, masking=lc.Masking(weights="head"))
    return lc.score(scorer, digits, return_path=True)


@pytest.fixture(scope="session")
def incomplete_scores() -> lc.ScoreTable:
    """Four rows, of which row 2 is not finite."""
    x = torch.ones(4, 3)
    x[2] = torch.nan
    path = lc.LearningPath.explicit([1.0, 0.5])
    masking = lc.Masking(weights="head")
    scorer = lc.Scorer(torch.nn.Linear(3, 2), head="linear", path=path, masking=masking)
    return lc.score(scorer, (x, torch.tensor([0, 1, 0, 1])))
