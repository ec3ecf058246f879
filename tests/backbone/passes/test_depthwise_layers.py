"""Depthwise convolutions: float32 weights, whatever the copy computes in."""

from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fast_layers
from lc_engine.backbone.recognize import is_depthwise
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.ops import contract
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared
from lc_engine.submodels import Submodels

pytestmark = pytest.mark.skipif(
    contract.native() is None or contract.native().cpu_isa() == "baseline",
    reason="no C++ core with vectors",
)

PATH = LearningPath.explicit([1.0, 0.8])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_compact_network_keeps_its_digits(lite0, images, dtype):
    """With depthwise weights in bfloat16 too the largest error was 9 %, and it is 4.7 %."""
    x = images[0][:32]
    with torch.inference_mode():
        copy = Prepared(lite0, AUTO, Masking(), PATH).views(x, dtype)
        found = copy.features(x, range(2)).float()
        depthwise = [module for module in copy.tap.model.modules() if is_depthwise(module)]
        wanted = []
        with Submodels(lite0, PATH) as submodels:
            for k in range(2):
                submodels.at(k)
                wanted.append(lite0.forward_head(lite0.forward_features(x), pre_logits=True))
    assert len(depthwise) == 16
    assert all(module.weight.dtype == torch.float32 for module in depthwise)
    error = (found - torch.stack(wanted)).norm(dim=-1) / torch.stack(wanted).norm(dim=-1)
    assert error.max() < (1e-5 if dtype == torch.float32 else 0.065), error.max()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.Conv2d(24, 24, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=24),
        Conv2dSame(24, 24, 5, stride=2, groups=24, bias=False),
    ],
    ids=["plain", "uneven", "same"],
)
@pytest.mark.parametrize("activation", [None, nn.ReLU6(), nn.GELU(approximate="tanh")], ids=str)
def test_a_layer_and_its_activation(layer, activation):
    assert is_depthwise(layer)
    x = torch.randn(3, 24, 15, 17)
    with torch.inference_mode():
        wanted = layer(x) if activation is None else activation(layer(x))
        one = wanted[0]
        activations = {} if activation is None else {layer: activation}
        fast_layers.apply(ModelCopy(layer, x, layers=[layer], activations=activations))
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer(x[0]), one, rtol=1e-5, atol=1e-5)
    del layer.forward


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(24, 48, 3, groups=24),
        nn.Conv2d(24, 24, 3, groups=12),
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(24, 24, 3, padding=1, groups=24, padding_mode="reflect"),
        nn.Conv2d(24, 24, 3, padding="same", groups=24),
        Conv2dSame(24, 24, 5, stride=2),
        nn.Linear(24, 24),
    ],
    ids=str,
)
def test_not_depthwise(layer):
    assert not is_depthwise(layer)
