from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lc_engine as lc
from helpers.frameworks import fit_with_lightning, lightning
from lc_engine.integrations.rescoring import RescoringSampler
from lc_engine.selection.sampler import FlexRandSampler

KEEP, GAMMA = 0.25, 0.5


def new_head() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(64, 10)


def step(head, x, y) -> None:
    """Update the head by one step of gradient descent."""
    loss = nn.functional.cross_entropy(head(x), y)
    (gradient,) = torch.autograd.grad(loss, head.weight)
    with torch.no_grad():
        head.weight -= gradient


def score(head, x, y):
    """The same rows scored directly."""
    scorer = lc.Scorer(head, head="linear", masking=lc.Masking(weights="head"))
    return lc.score(scorer, (x, y))


def test_rows_are_scored_with_the_current_head(digits):
    head = new_head()
    sampler = RescoringSampler(head, *digits, KEEP, start=2, every=3, stop=9, seed=5)
    direct = None
    for epoch in range(11):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(set(drawn)) == len(sampler)
        if epoch < 2 or epoch >= 9:
            assert sorted(drawn) == list(range(1797))
            assert drawn != sorted(drawn)
        else:
            if epoch in (2, 5, 8):
                direct = score(head, *digits)
            np.testing.assert_allclose(sampler.scores.lc, direct.column("lc"), atol=1e-6)
            like = FlexRandSampler(direct, KEEP, gamma=GAMMA, seed=5)
            like.set_epoch(epoch)
            assert drawn == list(like)
        step(head, *digits)


def test_scoring_does_not_change_the_head_or_its_gradients(digits):
    head = new_head()
    nn.functional.cross_entropy(head(digits[0]), digits[1]).backward()
    before = [value.clone() for p in head.parameters() for value in (p, p.grad)]
    RescoringSampler(head, *digits, KEEP, start=0)
    after = [value for p in head.parameters() for value in (p, p.grad)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "every must be at least 1"),
        ({"start": 3, "stop": 3}, "stop above it"),
        ({"keep": 2.0}, "keep"),
        ({"gamma": 1.5}, "gamma must be"),
        ({"labels": torch.full((1797,), 10)}, "must lie in"),
    ],
)
def test_invalid_arguments_are_named(digits, change, message):
    given = {"features": digits[0], "labels": digits[1], "keep": KEEP, "start": 50} | change
    with pytest.raises(ValueError, match=message):
        RescoringSampler(new_head(), **given)


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_lightning_trains_on_its_rows(digits):
    x, y = digits
    seen: list[list[int]] = []

    class Probe(lightning().LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = new_head()

        def on_train_epoch_start(self) -> None:
            seen.append([])

        def training_step(self, batch, _):
            inputs, labels, rows = batch
            seen[-1].extend(rows.tolist())
            return nn.functional.cross_entropy(self.head(inputs), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    probe = Probe()
    sampler = RescoringSampler(probe.head, x, y, KEEP, start=1, every=2, stop=4)
    loader = DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_size=64, sampler=sampler)
    fit_with_lightning(probe, loader, 5)
    assert [len(rows) for rows in seen] == [1797, 449, 449, 449, 1797]
    assert all(len(set(rows)) == len(rows) for rows in seen)
    assert seen[1] != seen[2]
    accuracy = float((probe.head(x).argmax(1) == y).double().mean())
    assert accuracy > 0.8
