"""The interpreter's tests on a device, and launches, memory and graphs there."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import DeviceType

from helpers.kernel_suite import (
    LayerSuite,
    LinearSuite,
    MLPSuite,
    PhiloxSuite,
    PrototypeSuite,
    ThresholdSuite,
    TokenSuite,
)
from lc_engine.kernels import linear_confidence as linear_kernels
from lc_engine.kernels.interpreter import interpreting
from lc_engine.ops import masked_linear

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(interpreting(), reason="kernels are interpreted in this process"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device"),
]


@pytest.fixture
def device() -> str:
    return "cuda"


class TestLinear(LinearSuite): ...


class TestPrototype(PrototypeSuite): ...


class TestMLP(MLPSuite): ...


class TestLayer(LayerSuite): ...


class TestTokens(TokenSuite): ...


class TestThresholds(ThresholdSuite): ...


class TestPhilox(PhiloxSuite): ...


def large_head(premasked: bool) -> tuple[torch.Tensor, linear_kernels.LinearHead, torch.Tensor]:
    torch.manual_seed(0)
    samples = 128 * 2 * torch.cuda.get_device_properties(0).multi_processor_count
    x = torch.randn(samples, 256, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(500, 256, device="cuda", dtype=torch.bfloat16)
    t = torch.linspace(0, 1, 8, device="cuda")
    head = linear_kernels.prepare(w, None, t, None, None, premasked=premasked)
    return x, head, torch.full((8,), 1 / 8, dtype=torch.float64, device="cuda")


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
@pytest.mark.parametrize("premasked", [False, True], ids=["expanded", "premasked"])
def test_scores_take_one_launch(premasked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # filling with NaN would launch kernels too
    x, head, omega = large_head(premasked)
    labels = torch.zeros(len(x), dtype=torch.int64, device="cuda")
    linear_kernels.linear_confidence(x, head, labels, omega, True)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        linear_kernels.linear_confidence(x, head, labels, omega, True)
        torch.cuda.synchronize()
    launched = [e.name for e in profile.events() if e.device_type == DeviceType.CUDA]
    assert len(launched) == 1, launched


@pytest.mark.parametrize("premasked", [False, True], ids=["expanded", "premasked"])
def test_memory_holds_scores_and_no_logits(premasked: bool) -> None:
    x, head, omega = large_head(premasked)
    linear_kernels.linear_confidence(x, head, None, omega, False)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_kernels.linear_confidence(x, head, None, omega, False)
    assert torch.cuda.max_memory_allocated() - before <= 8 * len(x) + 4096


def test_layers_are_captured_in_a_cuda_graph() -> None:
    torch.manual_seed(0)
    layers = [(torch.randn(o, i, device="cuda") / i**0.5, o) for i, o in ((64, 96), (96, 32))]
    thresholds = torch.linspace(0, 0.1, 5, device="cuda")
    x = torch.randn(5, 200, 64, device="cuda")

    def forward() -> torch.Tensor:
        hidden = x
        for weight, outputs in layers:
            bias = weight.new_zeros(outputs)
            hidden = masked_linear(hidden, weight, bias, thresholds, activation="gelu")
        return hidden

    forward()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forward()
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(captured, forward(), rtol=0, atol=0)
