"""A model that fails on a row, and data whose first rows are odd, do not end the job."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import nn

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.feature_run import contents
from lc_engine.language.scorer import CausalLMScorer

ROWS, WIDTH, CLASSES = 40, 6, 4
MARK = 99.0


class Fragile(nn.Module):
    """Raises where a row begins with `MARK`; a NaN in the second place makes features NaN."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(WIDTH, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        if bool((x[:, 0] == MARK).any()):
            raise RuntimeError(f"index {len(x)} is out of bounds of <Layer object at 0x7f01>")
        features = self.body(x).relu().masked_fill(x[:, 1:2] == MARK, torch.inf)
        return self.head(features)


def made(bad=(), no_features=()):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Fragile(), torch.randn(ROWS, WIDTH)
    x[list(bad), 0] = MARK
    x[list(no_features), 1] = MARK
    return model, x, torch.arange(ROWS) % CLASSES


def scored(data, head="prototype", out=None, **options):
    model, x, y = data
    return lc.score(lc.Scorer(model, head=head), (x, y), out, batch_size=8, **options)


@pytest.mark.parametrize("head", ["prototype", "linear", "knn"])
@pytest.mark.parametrize("bad", [[13], [0], [0, 1, 2, 3, 4, 5, 6, 7], [39], [5, 6, 20, 31]])
def test_a_row_that_the_model_fails_on_has_a_status(head, bad):
    table = scored(made(bad), head)
    assert np.flatnonzero(table.column("status") == "failed").tolist() == bad
    detail = table.column("detail")
    (text,) = set(detail[bad])
    assert "index 1 is out of bounds of <Layer object>" in text
    assert table.status_counts()["ok"] == ROWS - len(bad)
    assert np.isfinite(np.delete(table.column("lc"), bad)).all()


def test_the_other_rows_have_the_scores_that_they_have_without_it():
    data = made()
    whole = scored(data, "linear")
    data[1][13, 0] = MARK
    table = scored(data, "linear")
    others = np.arange(ROWS) != 13
    for name in ("lc", "loss", "lc_std"):
        np.testing.assert_allclose(
            table.column(name)[others], whole.column(name)[others], rtol=1e-5
        )


def test_a_shard_of_failed_rows_has_the_columns_of_the_others(tmp_path):
    model, x, y = made(range(8, 16))
    scorer = lc.Scorer(model, path=lc.LearningPath.clenshaw_curtis(5), tol=1e-3)
    table = lc.score(scorer, (x, y), tmp_path, batch_size=8, shard_rows=8, return_path=True)
    assert table.status_counts() == {"ok": ROWS - 8, "failed": 8}
    assert table.column("points").shape == (ROWS,)
    assert np.isnan(table.column("path_log_probs")[8:16]).all()


def test_one_row_at_a_time_is_no_reason_to_end_at_the_first():
    data = made([0, 1])
    table = lc.score(lc.Scorer(data[0], head="linear"), data[1:], batch_size=1)
    assert table.status_counts() == {"ok": ROWS - 2, "failed": 2}


@pytest.mark.parametrize("head", ["prototype", "linear", "knn"])
def test_an_error_of_every_row_ends_the_job(head, tmp_path):
    with pytest.raises(ValueError, match=r"cannot take inputs.*out of bounds"):
        scored(made(range(ROWS)), head, tmp_path / "out")
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_model_that_fails_from_some_moment_on_ends_the_job(tmp_path, monkeypatch):
    """As a device that is gone: the rows after it have nothing to do with it."""
    model, x, y = made()
    calls, forward = [], Fragile.forward

    def breaking(self, rows):
        calls.append(len(rows))
        if len(calls) > 40:
            raise RuntimeError("CUDA error: device lost")
        return forward(self, rows)

    monkeypatch.setattr(Fragile, "forward", breaking)
    scorer = lc.Scorer(model, path=lc.LearningPath.linear(3, 0.3, 1.0))
    with pytest.raises(ValueError, match="device lost"):
        lc.score(scorer, (x, y), tmp_path / "out", batch_size=4, shard_rows=4)
    monkeypatch.setattr(Fragile, "forward", forward)
    assert list((tmp_path / "out").glob("part-*"))
    table = lc.score(scorer, (x, y), tmp_path / "out", batch_size=4, shard_rows=4)
    assert table.status_counts() == {"ok": ROWS}
    lc.score(scorer, (x, y), tmp_path / "undisturbed", batch_size=4, shard_rows=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_of_a_language_model_too(monkeypatch):
    rows = tiny.random_rows(np.random.default_rng(0), 10)
    scorer = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    want = lc.score(scorer, rows)
    score_rows = CausalLMScorer._score_rows

    def fragile(self, batch, *rest):
        if 3 in batch.ids:
            raise IndexError("index out of range in self")
        return score_rows(self, batch, *rest)

    monkeypatch.setattr(CausalLMScorer, "_score_rows", fragile)
    table = lc.score(scorer, rows)
    assert table.column("status").tolist() == ["failed" if i == 3 else "ok" for i in range(10)]
    assert table.column("detail")[3] == "IndexError: index out of range in self"
    others = np.arange(10) != 3
    np.testing.assert_allclose(table.column("lc")[others], want.column("lc")[others], rtol=1e-5)
    assert table.column_names == want.column_names


@pytest.mark.parametrize("head", ["prototype", "knn"])
@pytest.mark.parametrize("first", [8, 1, 20])
def test_a_first_batch_without_finite_features_does_not_end_the_job(head, first):
    data = made(no_features=range(first))
    table = scored(data, head)
    assert table.column("status").tolist() == ["non_finite"] * first + ["ok"] * (ROWS - first)


def test_no_finite_features_anywhere_is_an_error():
    with pytest.raises(ValueError, match="at least one row with a label and finite features"):
        scored(made(no_features=range(ROWS)))


def write_parquet(folder, lists):
    table = pa.table({"x": pa.array(lists, pa.list_(pa.float32())), "label": [0] * len(lists)})
    parquet.write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


def write_jsonl(folder, lists):
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps({"x": x, "label": 0}) + "\n" for x in lists))
    return path


def saved(folder, lists):
    import datasets

    features = datasets.Features(
        {"x": datasets.Sequence(datasets.Value("float32")), "label": datasets.Value("int64")}
    )
    return datasets.Dataset.from_dict({"x": lists, "label": [0] * len(lists)}, features)


def pairs(folder, lists):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(lists)

        def __getitem__(self, row):
            return torch.tensor(lists[row]), 0

    return Pairs()


@pytest.mark.parametrize("made_by", [write_parquet, write_jsonl, saved, pairs])
@pytest.mark.parametrize("odd", [[0], [0, 1], [3]])
def test_a_row_of_another_width_has_a_status_also_the_first(tmp_path, made_by, odd):
    lists = [[0.5] * (2 if i in odd else WIDTH) for i in range(7)]
    model = nn.Linear(WIDTH, CLASSES)
    table = lc.score(
        lc.Scorer(model, head="linear", masking=lc.Masking(weights="head")),
        made_by(tmp_path, lists),
    )
    assert np.flatnonzero(table.column("status") == "unreadable").tolist() == odd
    assert table.status_counts()["ok"] == 7 - len(odd)
