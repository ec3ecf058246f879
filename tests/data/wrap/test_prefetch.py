"""Prefetching batches to a GPU; the scores on one are compared where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc
from lc_engine.data.batch import OK, Batch
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.data.wrap import prefetch as module
from lc_engine.data.wrap.prefetch import prefetch_to_device


def batches(count: int) -> list[Batch]:
    rows = torch.arange(3)
    return [
        Batch(np.arange(3), torch.full((3, 4), float(i)), rows, [OK] * 3, [""] * 3)
        for i in range(count)
    ]


def test_on_a_cpu_batches_are_passed_on():
    given = batches(3)
    assert list(prefetch_to_device(iter(given), torch.device("cpu"))) == given


@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_next_batch_is_copied_before_this_one_is_yielded(monkeypatch, count):
    events = []

    def start(batch, *_):
        events.append(f"start {int(batch.inputs[0, 0])}")
        return batch, None

    monkeypatch.setattr(module.torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(module, "_start", start)
    monkeypatch.setattr(module, "_finish", lambda batch, *_: batch)
    given = batches(count)
    for i, batch in enumerate(prefetch_to_device(iter(given), torch.device("cuda"))):
        assert batch is given[i]
        events.append(f"use {i}")
    uses = [events.index(f"use {i}") for i in range(count)]
    assert uses == sorted(uses)
    for i in range(count - 1):
        assert events.index(f"start {i + 1}") < uses[i]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
def test_scores_on_a_gpu_are_those_of_a_cpu():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(5000, 32, generator=generator), torch.arange(5000) % 7
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 7)
    tables = []
    for device in ("cpu", "cuda"):
        scorer = lc.Scorer(
            torch.nn.Linear(32, 7).to(device), head="linear", masking=lc.Masking(weights="head")
        )
        scorer.model.load_state_dict(head.state_dict())
        tables.append(lc.score(scorer, ArraySource(x, y), batch_size=512))
    np.testing.assert_allclose(tables[1].column("lc"), tables[0].column("lc"), atol=1e-5)
