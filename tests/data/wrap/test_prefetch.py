"""Prefetching batches to a GPU; the scores on one are compared where there is one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import lc_engine as lc
from lc_engine.data.batch import OK, Batch
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.data.readers.torch_dataset import TorchDatasetSource
from lc_engine.data.wrap import prefetch as module
from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.mixture import Mixture
from lc_engine.data.wrap.prefetch import may_read_in_thread, prefetch_to_device
from lc_engine.data.wrap.subset import Subset
from lc_engine.data.wrap.with_ids import WithIds


def batches(count: int) -> list[Batch]:
    rows = torch.arange(3)
    return [
        Batch(np.arange(3), torch.full((3, 4), float(i)), rows, [OK] * 3, [""] * 3)
        for i in range(count)
    ]


def test_on_a_cpu_batches_are_passed_on():
    given = batches(3)
    assert list(prefetch_to_device(iter(given), torch.device("cpu"))) == given


@pytest.mark.parametrize("in_thread", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_next_batch_is_copied_while_this_one_is_used(monkeypatch, count, in_thread):
    started = [threading.Event() for _ in range(count)]
    threads = set()

    def start(batch, *_):
        threads.add(threading.get_ident())
        started[int(batch.inputs[0, 0])].set()
        return batch, None

    monkeypatch.setattr(module.torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(module, "_start", start)
    monkeypatch.setattr(module, "_finish", lambda batch, *_: batch)
    given = batches(count)
    device = torch.device("cuda")
    used = 0
    for i, batch in enumerate(prefetch_to_device(iter(given), device, in_thread=in_thread)):
        assert batch is given[i]
        used += 1
        for later in started[i + 1 : i + 2]:
            assert later.wait(10), "the next batch waits for the end of this one"
    assert used == count
    assert (threading.get_ident() in threads) == (not in_thread and count > 0)


def test_data_without_workers_are_read_by_the_thread_that_scores():
    rows = [(torch.ones(2), 0)] * 3
    for workers, in_thread in ((0, False), (1, True), (None, True)):
        source = TorchDatasetSource(rows, num_workers=workers)
        for wrapped in (source, Subset.first(source, 2), CachedSource(source, 0)):
            assert may_read_in_thread(wrapped) is in_thread
        ids = WithIds(Mixture({"a": source}), np.arange(3))
        assert may_read_in_thread(ids) is in_thread


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
