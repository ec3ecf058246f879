from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers.feature_run import CLASSES, contents, run, scorer, write_features
from lc_engine.data.faults import out_of_memory
from lc_engine.data.open import open_source
from lc_engine.scorer.scorer import Scorer
from lc_engine.scoring.oom_retry import Backoff

ERRORS = [
    MemoryError("Unable to allocate 9 GiB"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
]


@pytest.fixture
def little_memory(monkeypatch):
    """Makes scoring fail above a number of rows; gives the sizes that were tried."""
    tried = []

    def limit(rows, error):
        score_rows = Scorer.score_rows

        def limited(self, batch, progress=None, **options):
            tried.append(len(batch))
            if len(batch) > rows:
                raise error
            return score_rows(self, batch, progress, **options)

        monkeypatch.setattr(Scorer, "score_rows", limited)
        return tried

    return limit


@pytest.mark.parametrize("error", ERRORS, ids=["host", "device", "torch"])
def test_a_job_goes_on_with_smaller_batches_to_the_same_table(
    tmp_path, caplog, little_memory, error
):
    write_features(tmp_path)
    run(tmp_path, tmp_path / "undisturbed", batch_size=400, shard_rows=500)
    tried = little_memory(150, error)
    run(tmp_path, tmp_path / "out", batch_size=400, shard_rows=500)
    # 400 and 200 once; from then on pieces of 100 of what is read at a time.
    assert tried == [400, 200, *[100] * 4, 100, *[100] * 4, 100]
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert "going on with 200" in caplog.text


def test_progress_within_a_batch_does_not_go_back_where_a_batch_is_tried_again(monkeypatch):
    score_rows = Scorer.score_rows

    def reporting(self, batch, progress, **options):
        for rows in range(1, len(batch)):
            progress(rows)
        if len(batch) > 10:
            raise MemoryError
        return score_rows(self, batch, **options)

    monkeypatch.setattr(Scorer, "score_rows", reporting)
    seen = []
    data = (torch.randn(35, 12), torch.arange(35) % CLASSES)
    lc.score(scorer(), data, batch_size=16, progress=lambda *given: seen.append(given))
    reported = [done for phase, done, _ in seen if phase == "scores"]
    assert reported == sorted(set(reported))
    assert reported[:15] == list(range(1, 16))
    assert reported[-1] == 35


def test_learning_from_the_data_backs_off_too(monkeypatch):
    x, y = torch.randn(60, 12), torch.arange(60) % CLASSES
    model = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.Linear(12, CLASSES))
    fitted, tried = Scorer.fitted, []

    def limited(self, source, keep_in, batch_size, *rest):
        tried.append(batch_size)
        if batch_size > 20:
            raise MemoryError
        return fitted(self, source, keep_in, batch_size, *rest)

    want = lc.score(lc.Scorer(model), (x, y), batch_size=64)
    monkeypatch.setattr(Scorer, "fitted", limited)
    found = lc.score(lc.Scorer(model), (x, y), batch_size=64)
    assert tried == [64, 32, 16]
    np.testing.assert_allclose(found.column("lc"), want.column("lc"), rtol=1e-6)


def test_a_row_that_does_not_fit_ends_the_job(tmp_path, little_memory):
    write_features(tmp_path)
    little_memory(0, MemoryError())
    with pytest.raises(MemoryError, match="a single row does not fit"):
        run(tmp_path, tmp_path / "out")


def test_an_error_of_every_row_is_no_reason_to_try_them_all(tmp_path, little_memory):
    write_features(tmp_path)
    tried = little_memory(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, tmp_path / "out", batch_size=64)
    # Some rows of the batch and of the whole set, one by one; not the halves of the batch.
    assert tried == [64, *[1] * 32]
    assert not out_of_memory(ValueError("can't allocate memory"))


def test_pieces_keep_bad_rows_in_their_places(tmp_path, little_memory):
    write_features(tmp_path)
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    (batch,) = source.batches(1000)
    little_memory(90, MemoryError())
    pieces = list(Backoff(scorer(), source).score(batch))
    np.testing.assert_array_equal(np.concatenate([part.ids for part, _ in pieces]), batch.ids)
    status = [text for _, rows in pieces for text in rows().status]
    assert [i for i, text in enumerate(status) if text != "ok"] == [17, 500, 801]
