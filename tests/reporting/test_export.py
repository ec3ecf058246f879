"""The table for embedding viewers."""

from __future__ import annotations

import io
import json

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

import lc_engine as lc
from helpers.pages_of_scores import folder_of_images, scored
from lc_engine.reporting.export import _Plane, write_viewer_table


def test_every_row_has_its_image_its_class_and_its_place(tmp_path):
    table, root = folder_of_images(tmp_path, rows=12)
    ids = table.column("id")
    out = write_viewer_table(table, root, {"mine": ids[:5]}, tmp_path / "rows.parquet")
    frame = pq.read_table(out).to_pandas()
    assert frame["id"].tolist() == ids.tolist()
    assert frame["label"].tolist() == [f"class{n}" for n in table.column("label")]
    assert frame["kept_mine"].tolist() == [True] * 5 + [False] * 7
    for axis, column in (("x", "lc"), ("y", "lc_std")):
        np.testing.assert_array_equal(frame[axis], table.column(column))
    for name, image in zip(ids, frame["image"], strict=True):
        assert image["path"] == name
        small = np.asarray(PIL.Image.open(io.BytesIO(image["bytes"])).convert("RGB"), float)
        large = np.asarray(PIL.Image.open(root / name).convert("RGB"), float)
        np.testing.assert_allclose(small.mean((0, 1)), large.mean((0, 1)), atol=12)


def test_texts_and_columns_of_the_data_go_with_their_rows(tmp_path):
    rows = [
        {"instruction": f"Say {i}", "output": f"<b>{i}", "source": "ab"[i % 2]} for i in range(9)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = scored(0, rows=9, classes=0, names=np.arange(9), head={"kind": "lm"})
    out = write_viewer_table(
        table, tmp_path / "data.jsonl", None, tmp_path / "rows.parquet", carry=["source"]
    )
    frame = pq.read_table(out).to_pandas()
    assert frame["text"].tolist() == [f"user: Say {i}\n\nassistant: <b>{i}" for i in range(9)]
    assert frame["source"].tolist() == [row["source"] for row in rows]
    assert frame["label"].isna().all()
    unscored = frame["status"] != "ok"
    assert frame["x"].isna().tolist() == unscored.tolist()


@pytest.mark.parametrize("width", [1, 2, 9])
def test_the_plane_is_that_of_the_largest_variance(width):
    rng = np.random.default_rng(width)
    x = (rng.standard_normal((200, width)) * np.arange(1, width + 1)).astype(np.float32)
    x[17] = np.nan
    place = _Plane(x, 0).of(np.arange(200))
    assert np.isnan(place[17]).all() == (width > 1) or np.isnan(place[17, 0])
    known = np.delete(x, 17, 0).astype(np.float64)
    variances = np.sort(np.linalg.eigvalsh(np.cov(known.T, bias=True).reshape(width, width)))[::-1]
    want = np.pad(variances, (0, 1))[:2]
    np.testing.assert_allclose(np.delete(place, 17, 0).var(0), want, rtol=1e-6, atol=1e-9)


def test_a_table_of_features_is_placed_by_them(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6)).astype(np.float32)
    x[:, 2] *= 9
    import torch

    scorer = lc.Scorer(
        torch.nn.Linear(6, 3),
        head="linear",
        path=lc.LearningPath.gauss(2),
        masking=lc.Masking(weights="head"),
    )
    lc.score(scorer, (x, rng.integers(0, 3, 40)), tmp_path / "scores", features=True)
    out = write_viewer_table(tmp_path / "scores", out=tmp_path / "rows.parquet")
    frame = pq.read_table(out).to_pandas()
    assert abs(np.corrcoef(frame["x"], x[:, 2])[0, 1]) > 0.99
    assert "image" not in frame
    assert "path_log_probs" not in frame


def test_columns_without_data_and_tables_without_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="carry: name the data that have the column 'source'"):
        write_viewer_table(scored(0), out=tmp_path / "rows.parquet", carry=["source"])
    with pytest.raises(ValueError, match="has no row"):
        write_viewer_table(scored(0, rows=0), out=tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()
