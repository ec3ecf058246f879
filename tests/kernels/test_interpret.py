"""Tests of the kernels in Triton's interpreter, in a process with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest

from lc_engine.kernels.interpreter import interpreting

if not interpreting():
    pytest.skip(
        "the interpreter's suite needs TRITON_INTERPRET=1 pytest tests/kernels/test_interpret.py",
        allow_module_level=True,
    )

import torch

from helpers.kernel_suite import (
    LayerSuite,
    LinearSuite,
    MLPSuite,
    PhiloxSuite,
    PrototypeSuite,
    ThresholdSuite,
    TokenSuite,
)
from lc_engine.ops import apply_thresholds, linear_confidence, prototype_confidence
from lc_engine.ops.mlp_confidence import mlp_confidence

pytestmark = [
    pytest.mark.interpreter,
    # NumPy warns of infinities and NaN in a kernel's operands.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.fixture
def device() -> str:
    return "cpu"


class TestLinear(LinearSuite): ...


class TestPrototype(PrototypeSuite): ...


class TestMLP(MLPSuite): ...


class TestLayer(LayerSuite): ...


class TestTokens(TokenSuite): ...


class TestThresholds(ThresholdSuite): ...


class TestPhilox(PhiloxSuite): ...


class TestOperators:
    """The operators pass views, saliencies and plans on to the kernels."""

    def agree(self, operator, *args, **kwargs):
        ours = operator(*args, **kwargs, return_path=True, backend="triton")
        reference = operator(*args, **kwargs, return_path=True, backend="reference")
        for a, b in zip(ours, reference, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("saliency", ["none", "given", "each", "random"])
    def test_linear(self, saliency):
        torch.manual_seed(0)
        x, w = torch.randn(40, 30)[::2, ::2], torch.randn(15, 7).T
        b, y = torch.randn(14)[::2], torch.randint(0, 7, (40,), dtype=torch.int32)[::2]
        chosen = {
            "none": None,
            "given": torch.rand(15, 7).T,
            "each": torch.rand(4, 7, 15),
            "random": ("random", 12),
        }[saliency]
        t = torch.tensor([0.0, 0.2, 0.2, 0.9])
        self.agree(linear_confidence, x, w, b, y, t, saliency=chosen)

    def test_prototype(self):
        torch.manual_seed(1)
        z, mu = torch.randn(20, 3, 16).transpose(0, 1), torch.randn(16, 5).T
        for logit in ("inverse_distance", "neg_sq_distance", "cosine"):
            self.agree(
                prototype_confidence,
                z,
                mu,
                torch.randint(0, 5, (20,)),
                logit=logit,
                temperature=4.0,
            )

    def test_mlp(self):
        torch.manual_seed(2)
        weights = [torch.randn(15, 20).T * 0.3, torch.randn(7, 20) * 0.3]
        x, t = torch.randn(12, 15), torch.tensor([0.0, 0.1, 0.5])
        for saliency in (None, ("random", 4), [torch.rand(w.shape) for w in weights]):
            self.agree(
                mlp_confidence, x, weights, [None, torch.randn(7)], torch.randint(0, 7, (12,)), t,
                saliency=saliency, activation="gelu",
            )  # fmt: skip

    def test_apply_thresholds(self):
        torch.manual_seed(3)
        weights = [torch.randn(3, 4), torch.randn(50)]
        ours, reference = ([torch.zeros_like(w) for w in weights] for _ in range(2))
        apply_thresholds(weights, ours, [0.3, 0.6], ("random", 8), backend="triton")
        apply_thresholds(weights, reference, [0.3, 0.6], ("random", 8), backend="reference")
        assert all(torch.equal(a, b) for a, b in zip(ours, reference, strict=True))
