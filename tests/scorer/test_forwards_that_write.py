"""Models whose forward writes to its input: every sub-model gets the batch as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import Memory
from helpers.plain_loop import PlainLoop
from lc_engine import naive

PATH = lc.LearningPath.explicit([0.9, 0.5, 0.3])


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8),
            )  # fmt: skip
            self.fc = nn.Linear(8, 3)

    def write(self, x):
        x -= 0.5
        x /= 0.25

    def forward(self, x):
        self.write(x)
        return self.fc(self.body(x))


class WritesThroughAView(InPlace):
    def write(self, x):
        x.flatten(1).sub_(x.mean((1, 2, 3))[:, None])
        x[:, 1].mul_(2)


class WritesToSomeBatches(InPlace):
    """Its first rows are in range: a forward over them does not write."""

    def write(self, x):
        if x.abs().max() > 5:
            x /= 2


class Fresh(nn.Module):
    """The same model, each of whose forwards gets a fresh batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.body, self.fc = model.body, model.fc
        self.write = model.write

    def forward(self, x):
        x = x.clone()
        self.write(x)
        return self.fc(self.body(x))


MODELS = [InPlace, WritesThroughAView, WritesToSomeBatches]


def batch(rows=12):
    x = torch.randn(rows, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    x[rows // 2 :] *= 4
    return x.to(memory_format=torch.channels_last), torch.arange(rows) % 3


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("which", ["body", "head", "all"])
def test_a_linear_head_scores_as_a_plain_loop(model, which):
    module = model().eval()
    x, y = batch()
    kept = x.clone()
    masking = lc.Masking(weights=which)
    scores = lc.Scorer(module, head="linear", path=PATH, masking=masking).score_batch((x, y))
    assert torch.equal(x, kept)  # nor is the caller's batch written to
    loop = PlainLoop(Fresh(module), "fc")
    with torch.inference_mode():
        p = torch.stack([
            loop.linear(weights, x, y)
            for weights in loop.masked(
                PATH.capacities, kind="magnitude", scope="global", which=which
            )
        ])  # fmt: skip
    loss = (torch.tensor(PATH.weights, dtype=torch.float64)[:, None] * -p.log()).sum(0)
    torch.testing.assert_close(scores.loss.double(), loss, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("prototype", {}),
        ("knn", {}),
        ("prototype", {"masking": lc.Exits(("body.2", "body.4"))}),
        ("prototype", {"masking": lc.Masking("dropout")}),
        ("prototype", {"tol": 1e-6, "path": lc.LearningPath.clenshaw_curtis(5)}),
        ("linear", {"dtype": "bfloat16"}),
        ("linear", {"dtype": "auto"}),
    ],
    ids=["prototype", "knn", "exits", "dropout", "tol", "bfloat16", "auto"],
)
def test_a_run_scores_as_with_fresh_batches(model, head, options):
    if "masking" not in options or not options["masking"].brings_path:
        options = {"path": PATH, **options}
    (x, y), module = batch(), model()
    tables = [
        lc.score(lc.Scorer(one.eval(), head=head, **options), Memory(x.clone(), y), batch_size=5)
        for one in (module, Fresh(module))
    ]
    for name in ("lc", "loss"):
        found, right = (torch.from_numpy(table.column(name).copy()) for table in tables)
        torch.testing.assert_close(
            found, right, rtol=0, atol=1e-5 if "dtype" not in options else 1e-1
        )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loop", [naive.prototype_loop, naive.released_way])
def test_the_naive_loops_score_as_with_fresh_batches(model, loop):
    module = model().eval()
    x, y = batch()
    batches = [(x[:6].clone(), y[:6]), (x[6:].clone(), y[6:])]
    found = loop(naive.feature_extractor(module), lambda: iter(batches), PATH)
    right = loop(naive.feature_extractor(Fresh(module)), lambda: iter(batches), PATH)
    assert torch.equal(found.loss, right.loss)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), x)


def test_an_exit_that_a_later_layer_writes_over_is_scored_as_it_was():
    def network(inplace: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            return nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(392, 6),
                nn.ReLU(inplace), nn.Linear(6, 3),
            ).eval()  # fmt: skip

    x, y = batch()
    exits = lc.Exits(("0", "3"))
    found, right = (
        lc.score(lc.Scorer(network(inplace), masking=exits), Memory(x, y)).column("loss")
        for inplace in (True, False)
    )
    assert (found == right).all()
