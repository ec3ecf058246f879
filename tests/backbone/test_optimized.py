"""The copy in which sub-models live gives what the model gives, with less work."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from helpers.networks import Network, state
from lc_engine.backbone.passes.fold_batch_norm import fold_batch_norms
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO, Tap
from lc_engine.ops import philox
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared
from lc_engine.submodels import Submodels

PATH = LearningPath.explicit([1.0, 0.8, 0.5])


def features_one_by_one(model, inputs, masking):
    tap, found = Tap(model), []
    with torch.inference_mode(), Submodels(model, PATH, masking) as submodels:
        for k in range(len(PATH)):
            submodels.at(k)
            found.append(tap.features(inputs))
    return torch.stack(found)


def through_the_copy(model, inputs, masking, dtype=torch.float32):
    prepared = Prepared(model, AUTO, masking, PATH)
    with torch.inference_mode():
        views = prepared.views(inputs, dtype)
        views.features(inputs, range(3))  # the first batch also learns what the prefix holds
        return views.features(inputs, range(3))


@pytest.mark.parametrize("name", ["lite0", "resnet18"])
@pytest.mark.parametrize("kind", ["magnitude", "random"])
def test_the_copy_gives_the_features_of_the_model(models, pictures, name, kind):
    model, inputs = models[name], pictures[0][:5]
    before = state(model)
    want = features_one_by_one(model, inputs, Masking(kind))
    found = through_the_copy(model, inputs, Masking(kind))
    assert state(model) == before
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    rough = through_the_copy(model, inputs, Masking(kind), torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    similar = torch.cosine_similarity(rough.float(), want, dim=2)
    assert similar[0].min() > 0.995


@pytest.mark.parametrize(("name", "norms"), [("lite0", 49), ("resnet18", 20)])
def test_every_batch_norm_behind_a_convolution_is_folded(models, pictures, name, norms):
    model, inputs = copy.deepcopy(models[name]), pictures[0][:2]
    with torch.no_grad():
        want = model(inputs)
        factors = fold_batch_norms(model, inputs)
        assert len(factors) == norms
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        for weight, factor in factors.items():
            model.get_parameter(weight).mul_(factor)
        torch.testing.assert_close(model(inputs), want, rtol=1e-4, atol=1e-4)


class UsesTwice(nn.Module):
    """Its convolution's output goes into the norm and around it, where no hook sees it."""

    def __init__(self, asks: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_var.fill_(9.0)
        self.asks = asks

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + (self.norm.eps if self.asks else y)


@pytest.mark.parametrize("asks", [False, True])
def test_a_norm_that_cannot_be_folded_is_put_back(asks):
    model = UsesTwice(asks).eval()
    before, x = state(model), torch.randn(2, 3, 4, 4)
    want = model(x)
    assert fold_batch_norms(model, x) == {}
    assert state(model) == before
    assert torch.equal(model(x), want)


class Counting(nn.Module):
    """A stem, a block that writes into what it is given, and a head; counts their runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.block = nn.Conv2d(4, 5, 3)
        self.fc = nn.Linear(5, 2)
        self.runs: list[str] = []
        self.stem.register_forward_hook(self._count)

    def _count(self, *_):
        self.runs.append("stem")

    def forward(self, x):
        y = self.stem(x)
        y += 1  # into the stem's own output
        return self.fc(torch.relu(self.block(y)).mean((2, 3)))


def test_what_precedes_the_first_masked_weight_runs_once():
    torch.manual_seed(0)
    model, x = Counting().eval(), torch.randn(40, 3, 8, 8)
    masking = Masking(weights=lambda name, module: name == "block")
    want = features_one_by_one(model, x, masking)
    prepared = Prepared(model, AUTO, masking, PATH)
    with torch.inference_mode():
        views = prepared.views(x, torch.float32)
        views.features(x, range(3))
        runs = views.tap.model.runs
        runs.clear()
        found = views.features(x, range(3))
        assert runs.count("stem") == 3  # its hook runs for each sub-model, its inside does not
        stem = views.tap.model.stem
        inside = []
        stem[0].register_forward_hook(lambda *_: inside.append(1))
        again = views.features(x, range(3))
        assert len(inside) == 1
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, want, rtol=1e-5, atol=1e-5)


def test_dropout_drops_the_same_inputs_for_all_rows_and_nests():
    torch.manual_seed(1)
    model, x = (
        nn.Sequential(nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 3)).eval(),
        torch.ones(7, 50),
    )
    masking = Masking("dropout", seed=4)
    found = through_the_copy(model, x, masking)
    drawn = philox.uniform((50,), 4, 0)
    for k, r in enumerate(PATH.capacities):
        kept = (drawn >= 1 - r).float() / r
        want = torch.relu(model[0](x * kept))
        torch.testing.assert_close(found[k], want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, :1].expand_as(found), found)
    torch.testing.assert_close(through_the_copy(model, x[:1], masking)[:, 0], found[:, 0])


def test_dropout_is_no_mask():
    with pytest.raises(ValueError, match='kind="dropout" masks no weight'):
        Submodels(Network(), PATH, Masking("dropout"))


def test_a_model_that_cannot_be_copied_is_said():
    model = Network()
    model.lock = (part for part in "a generator")
    with pytest.raises(ValueError, match="Network cannot be copied"):
        Prepared(model, AUTO, Masking(), PATH).views(torch.ones(2, 3, 6, 6), torch.float32)


class WritesABuffer(nn.Module):
    """Counts its runs in a buffer, those that show the copy its parts among them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.fc = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x):
        self.runs += 1
        return self.fc(self.act(self.one(x)) * self.runs)


def test_a_forward_that_writes_to_a_buffer():
    torch.manual_seed(0)
    model, x = WritesABuffer().eval(), torch.randn(5, 6)
    found = through_the_copy(model, x, Masking())
    with torch.inference_mode():
        want = torch.relu(model.one(x))
    assert model.runs == 0
    torch.testing.assert_close(found[0], want, rtol=1e-5, atol=1e-5)
