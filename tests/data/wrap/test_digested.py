"""The digest of the data of a run: once, and for arrays beside the run."""

from __future__ import annotations

import threading

import pytest
import torch

import lc_engine as lc
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.data.readers.torch_dataset import TorchDatasetSource
from lc_engine.data.wrap.digested import digested
from lc_engine.data.wrap.mixture import Mixture
from lc_engine.data.wrap.subset import Subset


def arrays(rows=6):
    torch.manual_seed(0)
    return torch.randn(rows, 4), torch.arange(rows) % 2


@pytest.fixture
def hashed(monkeypatch):
    """The threads in which arrays are hashed; they wait until `let` is set."""
    own, let, threads = ArraySource.digest, threading.Event(), []

    def digest(self):
        threads.append(threading.current_thread().name)
        assert let.wait(10), "the run waits for the digest"
        return own(self)

    monkeypatch.setattr(ArraySource, "digest", digest)
    return threads, let


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: Subset.first(s, 3)])
def test_arrays_are_hashed_once_while_they_are_read(hashed, wrap):
    threads, let = hashed
    source = wrap(ArraySource(*arrays()))
    with digested(source) as rows:
        assert [batch.ids.tolist() for batch in rows.batches(2)] == [
            batch.ids.tolist() for batch in source.batches(2)
        ]
        let.set()
        found = [rows.digest(), rows.digest()]
    assert found == [source.digest()] * 2
    assert len(threads) == 2
    assert threads[0].startswith("lc-digest")


def test_other_data_are_sampled_by_the_thread_of_the_run():
    seen = []

    class Rows(list):
        def __getitem__(self, row):
            seen.append(threading.get_ident())
            return super().__getitem__(row)

    source = TorchDatasetSource(Rows([(torch.ones(2), 0)] * 9), num_workers=0)
    for one in (source, Mixture({"a": ArraySource(*arrays()), "b": source})):
        seen.clear()
        with digested(one) as rows:
            assert not seen
            assert rows.digest() == rows.digest()
        assert seen == [threading.get_ident()] * 3


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_run_hashes_its_arrays_once_and_anew_if_they_changed(tmp_path, hashed, in_folder):
    threads, let = hashed
    let.set()
    x, y = arrays(64)
    source = ArraySource(x.clone(), y)
    scorer = lc.Scorer(torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 2)))
    first = lc.score(scorer, source, tmp_path / "a" if in_folder else None)
    assert len(threads) == 1
    assert first.metadata["data_digest"] == ArraySource(x, y).digest()
    source.features[0, 0] += 1
    second = lc.score(scorer, source, tmp_path / "b" if in_folder else None)
    assert second.metadata["data_digest"] != first.metadata["data_digest"]
    if in_folder:
        with pytest.raises(ValueError, match="data_digest"):
            lc.score(scorer, source, tmp_path / "a")


def test_a_run_that_fails_waits_for_its_thread(hashed):
    _threads, let = hashed
    let.set()
    with pytest.raises(KeyError), digested(ArraySource(*arrays())):
        raise KeyError
    assert not any(thread.name.startswith("lc-digest") for thread in threading.enumerate())
