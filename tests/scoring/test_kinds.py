"""Every kind of data through the command line, in every way that a job runs."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from helpers.through_the_command_line import whole_job

pytestmark = pytest.mark.slow

MODULE = """
import math
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))

def gauss(outputs, targets):
    error = (outputs[:, :2] - targets).square().sum(1)
    return error / 2 + math.log(2 * math.pi)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module `own_kind` with a model and a loss."""
    (tmp_path / "own_kind.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_kind", None)


def arrays(folder, targets):
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((20, 6)).astype(np.float32))
    np.save(folder / "y.npy", targets(rng))
    return ("--data", str(folder / "x.npy"), "--labels", str(folder / "y.npy"))


def test_any_loss(module, tmp_path, capsys):
    targets = arrays(tmp_path, lambda rng: rng.standard_normal((20, 2)))
    y = np.load(tmp_path / "y.npy")
    y[3] = np.nan
    np.save(tmp_path / "y.npy", y)
    job = ("--model", "own_kind:model", "--loss", "own_kind:gauss", *targets)
    table = whole_job(tmp_path / "out", job, capsys, module, code=3)
    assert table.status_counts() == {"ok": 19, "non_finite": 1}
    assert table.metadata["head"]["loss"] == "own_kind:gauss"


def test_votes(module, tmp_path, capsys):
    targets = arrays(tmp_path, lambda rng: rng.integers(1, 9, (20, 3)))
    job = ("--model", "own_kind:model", "--head", "linear", "--label-kind", "soft", *targets)
    table = whole_job(tmp_path / "out", job, capsys, module)
    assert (table.column("label") == np.load(tmp_path / "y.npy").argmax(1)).all()


def test_no_labels(module, tmp_path, capsys):
    targets = arrays(tmp_path, lambda rng: np.zeros(20, np.int64))
    job = ("--model", "own_kind:model", "--head", "linear", "--label-kind", "none", *targets)
    table = whole_job(tmp_path / "out", job, capsys, module)
    assert (table.column("label") == -1).all()
    assert ((table.column("agreement") >= 0) & (table.column("agreement") <= 1)).all()
