"""Forwards through torch.compile: the same scores, compiled once for all sub-models."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import lc_engine as lc
from helpers.networks import SmallNet
from lc_engine.backbone import compiled, tuning
from lc_engine.ops import FallbackWarning, contract

PATH = lc.LearningPath.explicit([1.0, 0.7, 0.3, 0.1])
ROWS, BATCH, CLASSES = 21, 8, 3


@pytest.fixture
def counter(monkeypatch):
    """Compiles on the CPU, and counts."""
    counted = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiled, "pays", lambda *_: True)
    monkeypatch.setattr(compiled, "BACKEND", counted)
    torch.compiler.reset()
    return counted


def data(side=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 3, side, side, generator=generator), torch.arange(ROWS) % CLASSES


def networks():
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3, num_classes=CLASSES
    )
    resnet = timm.create_model("resnet18", num_classes=CLASSES, zero_init_last=False)
    return {"small": (SmallNet(0, CLASSES), 12), "vit": (vit, 32), "resnet": (resnet, 32)}


def scored(model, side=12, head="prototype", out=None, **options):
    scorer = lc.Scorer(model.eval(), head=head, path=PATH, **options)
    return lc.score(scorer, data(side), out, batch_size=BATCH)


@pytest.mark.parametrize("head", ["prototype", "linear"])
@pytest.mark.parametrize("name", ["small", "vit", pytest.param("resnet", marks=pytest.mark.slow)])
def test_scores_are_those_of_eager_forwards(monkeypatch, counter, name, head):
    model, side = networks()[name]
    found = scored(model, side, head)
    assert counter.frame_count == 1, "of all sub-models and the last, ragged batch"
    monkeypatch.setattr(compiled, "pays", lambda *_: False)
    eager = scored(model, side, head)
    assert counter.frame_count == 1
    for column in ("lc", "loss"):
        np.testing.assert_allclose(found.column(column), eager.column(column), atol=1e-5)
    assert (found.column("status") == eager.column("status")).all()


@pytest.mark.slow
def test_scores_are_those_of_the_real_compiler(monkeypatch):
    monkeypatch.setattr(compiled, "pays", lambda *_: True)
    torch.compiler.reset()
    model, side = networks()["small"]
    found = scored(model, side)
    monkeypatch.setattr(compiled, "pays", lambda *_: False)
    np.testing.assert_allclose(found.column("lc"), scored(model, side).column("lc"), atol=1e-5)


@pytest.mark.slow
def test_bfloat16_ranks_as_eager_forwards_do(monkeypatch, counter):
    model, side = networks()["resnet"]
    found = scored(model, side, dtype="bfloat16").column("loss")
    monkeypatch.setattr(compiled, "pays", lambda *_: False)
    eager = scored(model, side, dtype="bfloat16").column("loss")
    assert counter.frame_count == 1
    np.testing.assert_allclose(found, eager, rtol=2e-2)


def test_the_model_is_left_as_it_is(counter):
    model, side = networks()["vit"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scored(model, side)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_compiled_runs_eagerly_and_says_so_once(monkeypatch, counter):
    def refuses(graph, inputs):
        raise RuntimeError("no such instruction\nmore")

    monkeypatch.setattr(compiled, "BACKEND", refuses)
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match=r"SmallNet is not compiled \(.*no such") as seen:
        found = scored(SmallNet(0, CLASSES))
    assert len(seen) == 1
    monkeypatch.setattr(compiled, "pays", lambda *_: False)
    np.testing.assert_allclose(
        found.column("lc"), scored(SmallNet(0, CLASSES)).column("lc"), atol=1e-5
    )


class GoesOn(nn.Module):
    """Does something after its classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = SmallNet(0, CLASSES)

    def forward(self, x):
        return self.net(x).softmax(1)


def test_a_model_that_does_not_end_with_its_classifier_runs_eagerly(monkeypatch, counter):
    contract.warn_once.cache_clear()
    with pytest.warns(FallbackWarning, match="GoesOn is not compiled .*end with its classifier"):
        found = scored(GoesOn())
    monkeypatch.setattr(compiled, "pays", lambda *_: False)
    np.testing.assert_allclose(found.column("lc"), scored(GoesOn()).column("lc"), atol=1e-5)


def test_dropout_is_not_compiled(counter):
    scored(SmallNet(0, CLASSES), masking=lc.Masking("dropout"))
    assert counter.frame_count == 0


def test_a_larger_batch_is_compiled_and_a_smaller_one_padded(counter):
    model = SmallNet(0, CLASSES).eval()
    scorer = lc.Scorer(model, head="linear", path=PATH)
    x, y = data()
    whole = scorer.score_batch((x, y))
    parts = [scorer.score_batch((x[i : i + 5], y[i : i + 5])) for i in range(0, ROWS, 5)]
    torch.testing.assert_close(torch.cat([part.lc for part in parts]), whole.lc, atol=1e-5, rtol=0)
    assert counter.frame_count == 1


def test_compiling_pays_by_the_size_of_the_job_on_a_device():
    cuda = torch.device("cuda")
    rows = tuning.COMPILED_FORWARDS // 50
    assert compiled.pays(cuda, rows, 50)
    assert not compiled.pays(cuda, rows - 1, 50)
    assert not compiled.pays(torch.device("cpu"), 10**9, 50)


def test_the_size_is_that_of_the_whole_data_set(monkeypatch, tmp_path):
    """Also of one part, and of a run that continues: all rows are rounded alike."""
    asked = []
    monkeypatch.setattr(compiled, "pays", lambda device, *size: bool(asked.append(size)))
    scorer = lc.Scorer(SmallNet(0, CLASSES).eval(), head="linear", path=PATH)
    lc.score(scorer, data(), tmp_path / "out", batch_size=BATCH, shard_rows=BATCH)
    assert set(asked) == {(ROWS, len(PATH)), (0, len(PATH))}
    asked.clear()
    (tmp_path / "out" / "part-00001-of-00003.parquet").unlink()
    lc.score(scorer, data(), tmp_path / "out", batch_size=BATCH, shard_rows=BATCH)
    assert (ROWS, len(PATH)) in asked
    asked.clear()
    head_only = lc.Scorer(
        SmallNet(0, CLASSES).eval(), head="linear", path=PATH, masking=lc.Masking(weights="head")
    )
    lc.score(head_only, data())
    assert (ROWS, 1) in asked, "one forward serves all sub-models"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_scores_of_a_gpu_are_those_of_eager_forwards(monkeypatch, dtype):
    torch.compiler.reset()
    model, side = networks()["resnet"]
    found = []
    for pays in (True, False):
        monkeypatch.setattr(compiled, "pays", lambda *_, pays=pays: pays)
        found.append(scored(model.cuda(), side, dtype=dtype).column("loss"))
    np.testing.assert_allclose(*found, rtol=1e-3 if dtype == "float32" else 5e-2)
