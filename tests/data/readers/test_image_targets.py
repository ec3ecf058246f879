"""Images with votes, and images without any label."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers import tiny_vision as tiny
from helpers.tiny_image_text import picture
from lc_engine.cli import main as cli
from lc_engine.data.open import open_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
hf = pytest.importorskip("datasets")

VOTES = [[3, 1, 0], [0, 0, 2], None, [1, -1, 0], [0, 0, 0], [0.5, 0.25, 0.25]]


def mean(image):
    return torch.from_numpy(np.asarray(image).mean((0, 1)))


def content(seed):
    stream = io.BytesIO()
    picture(seed).save(stream, "PNG")
    return stream.getvalue()


def rows():
    return [{"image": {"bytes": content(i), "path": None}, "votes": v} for i, v in enumerate(VOTES)]


def written(kind, folder, table):
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), folder / "rows.parquet")
        return folder / "rows.parquet"
    made = hf.Dataset.from_list(table).cast_column("image", hf.Image())
    made.save_to_disk(folder / "saved")
    return folder / "saved" if kind == "saved" else made


@pytest.mark.parametrize("kind", ["parquet", "saved", "dataset"])
def test_votes_beside_images_are_read(kind, tmp_path):
    data = written(kind, tmp_path, rows())
    source = open_source(data, transform=mean, label_kind="soft")
    (batch,) = source.batches(8)
    assert batch.status == ["ok", "ok", "bad_label", "bad_label", "bad_label", "ok"]
    assert batch.labels.tolist() == [0, 2, -1, -1, -1, 0]
    shares = torch.stack(batch.targets)
    wanted = torch.tensor([[0.75, 0.25, 0], [0, 0, 1], [0.5, 0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(shares, wanted)
    assert source.describe()["label_column"] == "votes"
    with pytest.raises(ValueError, match="label_column must be named: no column is integers"):
        open_source(data, transform=mean)


@pytest.mark.parametrize("kind", ["parquet", "saved", "dataset"])
def test_images_without_a_label_column_are_read_without_labels(kind, tmp_path):
    table = [{"image": row["image"]} for row in rows()]
    data = written(kind, tmp_path, table)
    source = open_source(data, transform=mean, label_kind="none")
    first, second = source.batches(4)
    assert [*first.status, *second.status] == ["ok"] * 6
    assert second.labels.tolist() == [-1, -1]
    assert source.describe()["label_column"] is None
    assert source.digest() == open_source(data, transform=mean, label_kind="none").digest()
    with pytest.raises(ValueError, match="no column is integers"):
        open_source(data, transform=mean)


def test_features_with_votes_are_refused_as_before(tmp_path):
    table = pa.table({"x": [[0.5, 1.0]], "label": [1]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="a ParquetSource has a class per row"):
        open_source(tmp_path / "rows.parquet", label_kind="soft")


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        picture(i).save(folder / f"{i:02}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "without a suffix").write_bytes(content(99))
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_a_flat_folder_is_read_where_labels_are_not(flat):
    source = open_source(flat, transform=mean, label_kind="none")
    (batch,) = source.batches(32)
    names = [*(f"{i:02}.png" for i in range(12)), "broken.jpg", "without a suffix"]
    assert batch.ids.tolist() == names
    assert [name for name, s in zip(names, batch.status, strict=True) if s != "ok"] == [
        "broken.jpg"
    ]
    assert source.classes is None
    assert source.describe()["other_files"]["first"] == ["notes.txt"]
    for kind in ("class", "soft"):
        with pytest.raises(ValueError, match="one sub-folder per class"):
            open_source(flat, transform=mean, label_kind=kind)


def test_a_folder_with_classes_is_read_as_before_without_labels(flat):
    (flat / "cats").mkdir()
    picture(1).save(flat / "cats" / "a.png")
    source = open_source(flat, transform=mean, label_kind="none")
    assert source.paths == ["cats/a.png"]
    assert source.describe()["other_files"]["count"] == 15


def test_a_flat_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds no images$"):
        open_source(tmp_path, transform=mean, label_kind="none")


def test_a_flat_folder_is_scored_and_pruned(flat, tmp_path, capsys):
    model = tiny.save(tmp_path / "model", "ViT", "ForImageClassification", num_labels=3)
    job = ["--model", model, "--head", "linear", "--data", str(flat), "--label-kind", "none"]
    out = tmp_path / "pruned"
    assert cli.run(["prune", *job, "--keep", "6", "--strategy", "easy", "--out", str(out)]) == 3
    capsys.readouterr()
    table = lc.ScoreTable.read(out / "scores")
    assert table.status_counts() == {"ok": 13, "unreadable": 1}
    kept = sorted(path.name for path in (out / "data").iterdir())
    lc_of = dict(zip(table.column("id").tolist(), table.column("lc").tolist(), strict=True))
    assert kept == sorted(sorted(set(lc_of) - {"broken.jpg"}, key=lc_of.get)[-6:])
