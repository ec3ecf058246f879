"""What an earlier run learnt is not used by a run with another model or other data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine.heads.memory_bank import MemoryBank
from lc_engine.heads.prototype import Prototypes

LEARNT = {"prototype": "_prototypes.npz", "knn": "_bank.npz", "dtype": "_dtype.json"}


def model(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def scorer(kind, seed=0):
    options = {"dtype": "auto"} if kind == "dtype" else {"head": kind}
    return lc.Scorer(model(seed), path=lc.LearningPath.linear(2, 0.5, 1.0), **options)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random((60, 6), dtype=np.float32)), torch.arange(60) % 3


def forget(folder, keep):
    """Delete all of a run but one file."""
    for path in folder.iterdir():
        if path.name != keep:
            path.unlink()


@pytest.mark.parametrize("kind", LEARNT)
@pytest.mark.parametrize("other", ["model", "data"])
def test_the_left_over_of_another_run_is_refused_by_name(tmp_path, kind, other):
    lc.score(scorer(kind), data(), tmp_path)
    forget(tmp_path, LEARNT[kind])
    with pytest.raises(ValueError, match=rf"{LEARNT[kind]} was left by .*{other}_digest.*delete"):
        lc.score(scorer(kind, seed=other == "model"), data(other == "data"), tmp_path)
    (tmp_path / LEARNT[kind]).unlink()
    again = lc.score(scorer(kind, seed=other == "model"), data(other == "data"), tmp_path)
    alone = lc.score(scorer(kind, seed=other == "model"), data(other == "data"))
    np.testing.assert_allclose(again.column("lc"), alone.column("lc"), atol=1e-6)


@pytest.mark.parametrize("kind", LEARNT)
def test_that_of_the_same_run_is_used(tmp_path, kind):
    first = lc.score(scorer(kind), data(), tmp_path).table
    content = (tmp_path / LEARNT[kind]).read_bytes()
    forget(tmp_path, LEARNT[kind])
    assert lc.score(scorer(kind), data(), tmp_path).table.equals(first)
    assert (tmp_path / LEARNT[kind]).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"[]", b"other"])
@pytest.mark.parametrize("kind", LEARNT)
def test_a_damaged_one_is_refused_by_name(tmp_path, kind, content):
    lc.score(scorer(kind), data(), tmp_path)
    forget(tmp_path, LEARNT[kind])
    (tmp_path / LEARNT[kind]).write_bytes(content)
    with pytest.raises(ValueError, match=f"{LEARNT[kind]} is damaged.*delete it"):
        lc.score(scorer(kind), data(), tmp_path)


@pytest.mark.parametrize("kind", ["prototype", "knn"])
def test_what_was_learnt_with_other_weights_is_not_scored_with(tmp_path, kind):
    lc.score(scorer(kind), data(), tmp_path)
    load = Prototypes.load if kind == "prototype" else MemoryBank.load
    learnt = load(tmp_path / LEARNT[kind])
    use = "use_prototypes" if kind == "prototype" else "use_bank"
    getattr(scorer(kind), use)(learnt).score_batch(data())
    with pytest.raises(ValueError, match="learnt with another model"):
        getattr(scorer(kind, seed=1), use)(learnt).score_batch(data())
