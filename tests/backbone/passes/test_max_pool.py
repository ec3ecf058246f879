"""Max poolings return torch's bits, and apply the ReLU before them."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from lc_engine import ops
from lc_engine.backbone.model_copy import ModelCopy
from lc_engine.backbone.passes import fold_batch_norm, fuse_activations, max_pool
from lc_engine.backbone.recognize import is_max_pool
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.ops import contract
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared

pytestmark = pytest.mark.skipif(
    contract.native() is None or contract.native().cpu_isa() == "baseline",
    reason="poolings are torch's",
)


@pytest.fixture
def calls(monkeypatch):
    counted, pool = [], ops.max_pool

    def counting(*arguments, **keywords):
        counted.append(keywords["relu"])
        return pool(*arguments, **keywords)

    monkeypatch.setattr(ops, "max_pool", counting)
    return counted


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [32, 20])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_the_same_bits_as_torch(calls, relu, dtype, channels, layout):
    torch.manual_seed(0)
    pool = nn.MaxPool2d(3, (2, 1), padding=1)
    x = (torch.randn(2, channels, 9, 8) - 1).to(dtype).contiguous(memory_format=layout)
    want = pool(x).relu() if relu else pool(x)
    activations = {pool: nn.ReLU()} if relu else {}
    assert max_pool.apply(ModelCopy(pool, x, activations=activations))
    assert torch.equal(pool(x), want)
    assert torch.equal(pool(input=x[0]), want[0])
    ours = dtype != torch.float64 and channels == 32 and layout == torch.channels_last
    assert calls == [relu] * ours


def test_other_poolings_stay():
    class Own(nn.MaxPool2d):
        def forward(self, x):
            return super().forward(x) + 1

    others = nn.Sequential(
        nn.MaxPool2d(3, dilation=2),
        nn.MaxPool2d(3, ceil_mode=True),
        nn.MaxPool2d(3, return_indices=True),
        nn.AvgPool2d(3),
        Own(3),
    )
    assert not any(map(is_max_pool, others))
    assert not max_pool.apply(ModelCopy(others, torch.zeros(1, 16, 9, 9)))


class Stem(nn.Module):
    def __init__(self, *, keeps: bool, inplace: bool) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 16, 3), nn.ReLU(inplace)
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(16, 16, 1)
        self.keeps = keeps

    def forward(self, x):
        y = self.act(self.conv(x))
        return self.last(self.pool(y)).sum((2, 3)) + (y.sum((2, 3)) if self.keeps else 0)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_pooling_applies_the_relu_whose_only_consumer_it_is(inplace):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12)
    model = Stem(keeps=False, inplace=inplace)
    rewritten = ModelCopy(model, x, layers=[model.conv, model.last])
    assert fuse_activations.apply(rewritten)
    assert list(rewritten.activations) == [model.pool]
    model = Stem(keeps=True, inplace=inplace)
    act = model.act
    assert not fuse_activations.apply(ModelCopy(model, x, layers=[model.conv, model.last]))
    assert model.act is act


def test_a_pooling_does_not_apply_other_activations():
    torch.manual_seed(0)
    for act in (nn.GELU(), nn.ReLU6()):
        model = nn.Sequential(nn.Conv2d(3, 16, 3), act, nn.MaxPool2d(2))
        rewritten = ModelCopy(model, torch.randn(2, 3, 12, 12), layers=[model[0]])
        assert fuse_activations.apply(rewritten)
        assert list(rewritten.activations) == [model[0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.slow
def test_a_network_pools_through_the_operator(calls, dtype):
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, zero_init_last=False).eval()
    x = torch.randn(3, 3, 64, 64)
    path = LearningPath.explicit([1.0])
    with torch.inference_mode():
        found = Prepared(model, AUTO, Masking(), path).views(x, dtype).features(x, [0])[0]
        folded = copy.deepcopy(model)
        fold_batch_norm.apply(ModelCopy(folded, x))
        want = folded.forward_head(folded.forward_features(x), pre_logits=True)
    assert calls == [True]
    rough = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found.float(), want, rtol=rough, atol=rough * want.max().item())
