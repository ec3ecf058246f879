"""An optimized copy returns what the sub-models of the model return."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from helpers.networks import Network, state, tiny_vit
from lc_engine.backbone.passes import PASSES
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO, Tap
from lc_engine.ops import contract, philox
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared
from lc_engine.submodels import Submodels

PATH = LearningPath.explicit([1.0, 0.8, 0.5])


def submodel_features(model, inputs, masking):
    tap, found = Tap(model), []
    with torch.inference_mode(), Submodels(model, PATH, masking) as submodels:
        for k in range(len(PATH)):
            submodels.at(k)
            found.append(tap.features(inputs))
    return torch.stack(found)


def copy_features(model, inputs, masking, dtype=torch.float32):
    prepared = Prepared(model, AUTO, masking, PATH)
    with torch.inference_mode():
        views = prepared.views(inputs, dtype)
        views.features(inputs, range(3))  # the first batch also learns what the prefix holds
        return views.features(inputs, range(3))


@pytest.mark.parametrize("name", ["lite0", "resnet18"])
@pytest.mark.parametrize("kind", ["magnitude", "random"])
def test_the_copy_returns_the_features_of_the_model(models, images, name, kind):
    model, inputs = models[name], images[0][:5]
    before = state(model)
    want = submodel_features(model, inputs, Masking(kind))
    found = copy_features(model, inputs, Masking(kind))
    assert state(model) == before
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    rounded = copy_features(model, inputs, Masking(kind), torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    similar = torch.cosine_similarity(rounded.float(), want, dim=2)
    assert similar[0].min() > 0.995


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_copy_returns_the_features_of_a_transformer(pool):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=3, num_classes=7, global_pool=pool
    ).eval()
    x = torch.randn(6, 3, 64, 64)
    want = submodel_features(model, x, Masking())
    torch.testing.assert_close(copy_features(model, x, Masking()), want, rtol=1e-4, atol=1e-4)


def test_dropout_drops_the_same_inputs_for_all_rows_and_nests():
    torch.manual_seed(1)
    model, x = (
        nn.Sequential(nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 3)).eval(),
        torch.ones(7, 50),
    )
    masking = Masking("dropout", seed=4)
    found = copy_features(model, x, masking)
    drawn = philox.uniform((50,), 4, 0)
    for k, r in enumerate(PATH.capacities):
        kept = (drawn >= 1 - r).float() / r
        want = torch.relu(model[0](x * kept))
        torch.testing.assert_close(found[k], want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, :1].expand_as(found), found)
    torch.testing.assert_close(copy_features(model, x[:1], masking)[:, 0], found[:, 0])


def test_dropout_masks_no_weight():
    with pytest.raises(ValueError, match='kind="dropout" masks no weight'):
        Submodels(Network(), PATH, Masking("dropout"))


def test_a_model_that_cannot_be_copied_is_rejected():
    model = Network()
    model.lock = (part for part in "a generator")
    with pytest.raises(ValueError, match="Network cannot be copied"):
        Prepared(model, AUTO, Masking(), PATH).views(torch.ones(2, 3, 6, 6), torch.float32)


class WritesABuffer(nn.Module):
    """Counts its forwards in a buffer, those of the passes among them."""

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
    found = copy_features(model, x, Masking())
    with torch.inference_mode():
        want = torch.relu(model.one(x))
    assert model.runs == 0
    torch.testing.assert_close(found[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dtype", "passes"),
    [
        ("lite0", torch.float32, {"fold_batch_norm", "fuse_activations"}),
        ("resnet18", torch.int8, {"fold_batch_norm", "fuse_activations", "max_pool"}),
        (
            "vit",
            torch.int8,
            {"cpu_attention", "fuse_activations", "fuse_mlp", "transformer_blocks"},
        ),
    ],
)
def test_the_passes_that_change_a_network(models, name, dtype, passes):
    if contract.native() is None or contract.native().cpu_isa() == "baseline":
        pytest.skip("no C++ core with vectors")
    model, x = (tiny_vit() if name == "vit" else models[name]), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        copy = Prepared(model, AUTO, Masking(), PATH).views(x, dtype)
    assert list(copy.passes) == [name for name in PASSES if name in copy.passes]
    assert set(copy.passes) == passes | {"cast", "fast_layers", "shared_prefix"}
