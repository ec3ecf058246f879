"""A scorer whose model changes after its sub-models were prepared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lc_engine as lc
from helpers.networks import Memory, SmallNet, data

PATH = lc.LearningPath.explicit([0.9, 0.5])


def assign_state(model):
    model.load_state_dict(SmallNet(seed=7).state_dict(), assign=True)


def replace_parameter(model):
    model.body[3].weight = nn.Parameter(torch.randn_like(model.body[3].weight))


def replace_buffer(model):
    model.body[1].running_var = torch.rand(8) + 0.5


def replace_layer(model):
    model.body[7] = nn.Linear(12, 16)


def replace_activation(model):
    model.body[8] = nn.Tanh()


def set_data(model):
    model.body[0].weight.data = torch.randn_like(model.body[0].weight)


def write_in_place(model):
    with torch.no_grad():
        model.body[0].weight.mul_(-2)


def write_through_data(model):
    model.body[3].weight.data.mul_(-2)


def write_to_an_unmasked_tensor_through_data(model):
    model.body[3].bias.data.add_(1)


def write_through_numpy(model):
    model.body[3].weight.detach().numpy()[:] *= -2


SEEN_AT_ONCE = [
    assign_state, replace_parameter, replace_buffer, replace_layer, replace_activation, set_data,
    write_in_place,
]  # fmt: skip
SEEN_BY_A_RUN = [
    write_through_data, write_to_an_unmasked_tensor_through_data, write_through_numpy,
]  # fmt: skip


def scorer_of(model, head, masking=None):
    return lc.Scorer(model, head=head, path=None if masking else PATH, masking=masking)


@pytest.mark.parametrize("change", SEEN_AT_ONCE)
def test_the_next_batch_is_scored_with_the_changed_model(change):
    model = SmallNet(seed=1)
    x, y = data()
    scorer = scorer_of(model, "linear")
    before = scorer.score_batch((x, y)).loss
    change(model)
    after = scorer.score_batch((x, y)).loss
    assert torch.equal(after, scorer_of(model, "linear").score_batch((x, y)).loss)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("kind", ["linear", "prototype", "knn", "exits"])
@pytest.mark.parametrize("change", SEEN_AT_ONCE + SEEN_BY_A_RUN)
@pytest.mark.slow
def test_a_run_scores_the_model_whose_digest_it_records(change, kind):
    head, masking = (
        ("prototype", lc.Exits(("body.3", "body.8"))) if kind == "exits" else (kind, None)
    )
    model = SmallNet(seed=1)
    source = Memory(*data())
    scorer = scorer_of(model, head, masking)
    before = lc.score(scorer, source)
    change(model)
    after, anew = lc.score(scorer, source), lc.score(scorer_of(model, head, masking), source)
    assert after.metadata["model_digest"] == anew.metadata["model_digest"]
    assert (after.column("loss") == anew.column("loss")).all()
    assert (after.column("loss") != before.column("loss")).any()
    if change is not replace_activation:
        assert after.metadata["model_digest"] != before.metadata["model_digest"]


def test_a_description_and_the_batches_after_it_are_of_one_model():
    model = SmallNet(seed=1)
    x, y = data()
    scorer = scorer_of(model, "linear")
    scorer.score_batch((x, y))
    write_through_data(model)
    assert scorer.describe() == scorer_of(model, "linear").describe()
    found = scorer.score_batch((x, y)).loss
    assert torch.equal(found, scorer_of(model, "linear").score_batch((x, y)).loss)


def test_a_model_that_does_not_change_is_prepared_once():
    scorer = scorer_of(SmallNet(seed=1), "linear")
    source = Memory(*data())
    lc.score(scorer, source)
    prepared = scorer._prepare()
    lc.score(scorer, source)
    assert scorer._prepare(verified=True) is prepared


class Settings(nn.Module):
    """A network that computes with more than its state."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.norm = nn.BatchNorm2d(8)
        self.scale, self.gain, self.gains = 1.0, torch.ones(1), {"all": [torch.ones(1)]}
        self.act = torch.relu
        self.register_buffer("offset", torch.zeros(1), persistent=False)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x))) * self.scale + self.offset
        return self.fc((x * self.gain * self.gains["all"][0]).mean((2, 3)))


class Tripled(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 3


SETTINGS = {
    "a number": lambda model: setattr(model, "scale", 3.0),
    "a layer's number": lambda model: setattr(model.norm, "eps", 5.0),
    "a layer's tuple": lambda model: setattr(model.conv, "stride", (2, 2)),
    "a function": lambda model: setattr(model, "act", torch.tanh),
    "a hook": lambda model: model.norm.register_forward_hook(lambda _, __, out: out * 3),
    "a class": lambda model: setattr(model.conv, "__class__", Tripled),
    "a tensor": lambda model: model.gain.mul_(3),
    "a tensor in a list": lambda model: model.gains["all"][0].data.mul_(3),
    "a buffer outside the state": lambda model: model.offset.data.add_(3),
}


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_sees_what_a_model_computes_with_besides_its_state(name, head):
    model, source = Settings(), Memory(*data())
    scorer = scorer_of(model, head)
    before = lc.score(scorer, source)
    SETTINGS[name](model)
    after, anew = lc.score(scorer, source), lc.score(scorer_of(model, head), source)
    assert (after.column("loss") == anew.column("loss")).all()
    assert (after.column("loss") != before.column("loss")).any()
