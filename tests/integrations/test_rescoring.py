from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import lc_engine as lc
from lc_engine.integrations.rescoring import RescoringSampler
from lc_engine.selection.sampler import FlexRandSampler

KEEP, GAMMA = 0.25, 0.5


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy((x / 16).astype(np.float32)), torch.from_numpy(y.astype(np.int64))


def new_head() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(64, 10)


def step(head, x, y) -> None:
    """Change the head by a step of gradient descent."""
    loss = nn.functional.cross_entropy(head(x), y)
    (gradient,) = torch.autograd.grad(loss, head.weight)
    with torch.no_grad():
        head.weight -= gradient


def want(head, x, y):
    """Score the same rows directly."""
    scorer = lc.Scorer(head, head="linear", masking=lc.Masking(weights="head"))
    return lc.score(scorer, (x, y))


def test_the_rows_are_scored_with_the_head_as_it_is(digits):
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
                direct = want(head, *digits)
            np.testing.assert_allclose(sampler.scores.lc, direct.column("lc"), atol=1e-6)
            like = FlexRandSampler(direct, KEEP, gamma=GAMMA, seed=5)
            like.set_epoch(epoch)
            assert drawn == list(like)
        step(head, *digits)


def test_scoring_leaves_the_head_and_its_gradients_alone(digits):
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
def test_arguments_that_do_not_fit(digits, change, message):
    given = {"features": digits[0], "labels": digits[1], "keep": KEEP, "start": 50} | change
    with pytest.raises(ValueError, match=message):
        RescoringSampler(new_head(), **given)


@pytest.mark.filterwarnings("default")  # of its own
def test_lightning_trains_on_the_rows_it_gives(digits):
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="Lightning is not installed: make test-integrations"
    )
    x, y = digits
    seen: list[list[int]] = []

    class Probe(lightning.LightningModule):
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
    trainer = lightning.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(probe, loader)
    assert [len(rows) for rows in seen] == [1797, 449, 449, 449, 1797]
    assert all(len(set(rows)) == len(rows) for rows in seen)
    assert seen[1] != seen[2]
    accuracy = float((probe.head(x).argmax(1) == y).double().mean())
    assert accuracy > 0.8


@pytest.mark.filterwarnings("default")  # of its own
def test_lightning_takes_a_subset_and_the_flexrand_sampler(digits):
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="Lightning is not installed: make test-integrations"
    )
    x, y = digits
    scores = want(new_head(), x, y)
    keep = lc.select(scores, KEEP, gamma=GAMMA)
    data = TensorDataset(x, y, torch.arange(len(x)))
    sampler = FlexRandSampler(scores, KEEP, gamma=GAMMA)
    for loader, drawn in (
        (DataLoader(Subset(data, keep.tolist()), batch_size=64), lambda _: keep.tolist()),
        (DataLoader(data, batch_size=64, sampler=sampler), lambda epoch: epochs(sampler, epoch)),
    ):
        seen: list[list[int]] = []

        class Probe(lightning.LightningModule):
            def __init__(self, seen=seen) -> None:
                super().__init__()
                self.head, self.seen = new_head(), seen

            def on_train_epoch_start(self) -> None:
                self.seen.append([])

            def training_step(self, batch, _):
                self.seen[-1].extend(batch[2].tolist())
                return nn.functional.cross_entropy(self.head(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(Probe(), loader)
        assert seen == [drawn(0), drawn(1)]


def epochs(sampler: FlexRandSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)
