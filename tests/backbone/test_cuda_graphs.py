"""All forwards over a batch as one CUDA graph: when it is captured, and what it returns."""

from __future__ import annotations

import pytest
import timm
import torch

from lc_engine.backbone import cuda_graphs as graphs
from lc_engine.backbone.cuda_graphs import CapturedGraph, Graphs
from lc_engine.masking import Masking
from lc_engine.models.classifier import AUTO
from lc_engine.ops import FallbackWarning
from lc_engine.path.learning_path import LearningPath
from lc_engine.scorer.prepared import Prepared


@pytest.fixture
def captures(monkeypatch):
    """A stand-in for a GPU: a replay computes from the captured inputs."""
    captured = []

    def capture(compute, inputs):
        held = inputs.clone()
        output = compute(held)

        def replay():
            output.copy_(compute(held))

        captured.append(held.shape)
        return CapturedGraph(replay, held, output)

    monkeypatch.setattr(graphs, "_on_gpu", lambda inputs: True)
    monkeypatch.setattr(graphs, "_capture", capture)
    return captured


def test_the_second_batch_of_a_shape_is_captured_and_the_third_replayed(captures):
    run, calls = Graphs("Net"), []

    def double(x):
        calls.append(x)
        return 2 * x

    batches = [torch.randn(3, 4) for _ in range(4)]
    found = [run.run("double", x, double) for x in batches]
    assert captures == [(3, 4)]
    for x, y in zip(batches, found, strict=True):  # an output is not written over by the next
        assert torch.equal(y, 2 * x)
    assert torch.equal(run.run("double", torch.ones(2, 4), double), torch.full((2, 4), 2.0))
    assert torch.equal(run.run("negate", batches[0], torch.neg), -batches[0])
    assert captures == [(3, 4)]  # other shapes and functions are new


def test_the_number_of_graphs_is_bounded(captures):
    run = Graphs("Net")
    for rows in range(1, 10):
        for _ in range(3):
            assert torch.equal(run.run("neg", torch.ones(rows), torch.neg), -torch.ones(rows))
    assert captures == [(1,), (2,), (3,), (4,)]


def test_what_cannot_be_captured_runs_eagerly_and_warns_once(monkeypatch, captures):
    def refuse(compute, inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "_capture", refuse)
    run, x = Graphs("Waits"), torch.ones(2)
    run.run("neg", x, torch.neg)
    with pytest.warns(FallbackWarning, match=r"Waits cannot be captured .*not permitted.*\)"):
        assert torch.equal(run.run("neg", x, torch.neg), -x)
    assert torch.equal(run.run("neg", x, torch.neg), -x)


def test_on_a_cpu_nothing_is_captured():
    run = Graphs("Net")
    for _ in range(3):
        assert torch.equal(run.run("neg", torch.ones(2), torch.neg), -torch.ones(2))
    assert not run._seen


def features(device, dtype):
    """Return features of three batches, through graphs where there are any, and without."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, zero_init_last=False).eval().to(device)
    path = LearningPath.explicit([1.0, 0.5, 0.1])
    views = Prepared(model, AUTO, Masking(), path)
    batches = torch.randn(3, 4, 3, 32, 32, device=device)
    with torch.inference_mode():
        copy = views.views(batches[0], dtype)

        def alone(part):
            return copy.tap.features(part.inputs)

        found = [copy.features(x, range(3)) for x in batches]
        assert torch.equal(copy.whole(batches[0]), copy.features(batches[0], [0])[0])
        return found, [copy._run_each(x, range(3), alone) for x in batches]


@pytest.mark.slow
def test_an_optimized_copy_returns_the_same_through_a_graph(captures):
    for through, without in zip(*features("cpu", torch.float32), strict=True):
        torch.testing.assert_close(through, without)
    assert captures == [(4, 3, 32, 32)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_optimized_copy_returns_the_same_through_a_graph_of_a_gpu(dtype):
    for through, without in zip(*features("cuda", dtype), strict=True):
        torch.testing.assert_close(through, without, rtol=1e-2, atol=1e-2)
