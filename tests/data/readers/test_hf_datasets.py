from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source

datasets = pytest.importorskip("datasets")


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 5, 4, 3), dtype=np.uint8)
    files = []
    for array in pixels:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG")
        files.append({"bytes": stream.getvalue(), "path": None})
    (tmp_path / "on_disk.png").write_bytes(files[9]["bytes"])
    files[9] = {"bytes": None, "path": str(tmp_path / "on_disk.png")}
    labels = [i % 3 for i in range(10)]
    features = datasets.Features(
        {"image": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    return files, labels, features, pixels


def want(pixels, labels):
    inputs = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    return [(i, inputs[i], labels[i], "ok", "") for i in range(len(labels))]


def test_saved_and_in_memory_images(tmp_path, images):
    files, labels, features, pixels = images
    dataset = datasets.Dataset.from_dict({"image": files, "fine": labels}, features=features)
    dataset.save_to_disk(tmp_path / "saved")
    digests = set()
    for data in (dataset, tmp_path / "saved"):
        source = open_source(data, transform=to_tensor)
        assert source.classes == ["a", "b", "c"]
        assert source.describe()["label_column"] == "fine"
        digests.add(source.digest())
        for batch_size in (1, 4, 32):
            assert_same(read_rows(source, batch_size), want(pixels, labels))
        assert_same(read_rows(source, 3, 2, 9), want(pixels, labels)[2:9])
    assert open_source(tmp_path / "saved").digest() in digests
    selected = dataset.select([4, 2])
    assert [row[2] for row in read_rows(open_source(selected, transform=to_tensor), 2)] == [1, 2]
    assert open_source(selected).digest() not in digests


def test_the_digest_tells_slices_and_orders_apart(tmp_path, images):
    files, labels, features, _ = images
    made = datasets.Dataset.from_dict({"image": files, "fine": labels}, features=features)
    made.save_to_disk(tmp_path / "saved")
    for dataset in (made, datasets.load_from_disk(str(tmp_path / "saved"))):
        subsets = [
            dataset,
            dataset.select(range(3)),
            dataset.select(range(3, 6)),
            dataset.select([4, 2]),
            dataset.select([2, 4]),
            dataset.select([]),
        ]
        digests = [open_source(subset).digest() for subset in subsets]
        assert len(set(digests)) == len(subsets)
        assert [open_source(subset).digest() for subset in subsets] == digests


def test_broken_images_keep_their_index(images):
    files, labels, features, _ = images
    files[1] = {"bytes": files[1]["bytes"][:60], "path": None}
    files[4] = None
    dataset = datasets.Dataset.from_dict({"image": files, "fine": labels}, features=features)
    rows = read_rows(open_source(dataset, transform=to_tensor), 4)
    assert [i for i, row in enumerate(rows) if row[3] == "unreadable"] == [1, 4]
    assert "missing" in rows[4][4]
    assert [row[2] for row in rows] == labels


@pytest.mark.parametrize("fixed", [True, False])
def test_features(tmp_path, fixed):
    rng = np.random.default_rng(1)
    features, labels = rng.standard_normal((30, 6)).astype(np.float32), rng.integers(0, 5, 30)
    kind = datasets.Sequence(datasets.Value("float32"), length=6 if fixed else -1)
    dataset = datasets.Dataset.from_dict(
        {"x": features.tolist(), "label": labels.tolist(), "text": ["t"] * 30},
        features=datasets.Features(
            {"x": kind, "label": datasets.Value("int64"), "text": datasets.Value("string")}
        ),
    )
    dataset.save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    assert source.classes is None
    expected = [(i, features[i], int(labels[i]), "ok", "") for i in range(30)]
    for batch_size in (1, 11, 64):
        assert_same(read_rows(source, batch_size), expected)
    assert_same(read_rows(source, 4, 7, 19), expected[7:19])


def test_labels_outside_the_classes():
    kind = datasets.Features(
        {
            "x": datasets.Sequence(datasets.Value("float32")),
            "label": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    dataset = datasets.Dataset.from_dict({"x": [[1.0]] * 3, "label": [0, None, 1]}, features=kind)
    rows = read_rows(open_source(dataset), 2)
    assert [row[3] for row in rows] == ["ok", "bad_label", "ok"]


def test_folders_that_cannot_be_used(tmp_path):
    dataset = datasets.Dataset.from_dict({"x": [[1.0]], "label": [0]})
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"splits train, test; pass one of them: .*train"):
        open_source(tmp_path / "splits")
    assert len(open_source(tmp_path / "splits" / "train")) == 1
    (tmp_path / "splits" / "train" / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="cannot be read as a saved data set"):
        open_source(tmp_path / "splits" / "train")
    with pytest.raises(ValueError, match="'y' does not exist; the columns are x"):
        open_source(dataset, label_column="y")
    with pytest.raises(ValueError, match="no column is lists"):
        open_source(datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
