from __future__ import annotations

import logging

import numpy as np
import pytest

from lc_engine.data.batch import Batch
from lc_engine.data.features import (
    FeatureFile,
    FeatureRecorder,
    Features,
    features_path,
    is_complete,
)


def batch(status):
    rows = len(status)
    return Batch(np.arange(rows), None, None, status, [""] * rows)


def parts_of(folder, *rows):
    return [(folder / f"part-{i:05d}-of-{len(rows):05d}.parquet", n) for i, n in enumerate(rows)]


def test_features_come_back_row_by_row_from_all_parts(tmp_path):
    parts = parts_of(tmp_path, 5, 3)
    values = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    status = ["ok", "unreadable", *["ok"] * 6]
    recorder = FeatureRecorder(parts)
    recorder.start()
    recorder.add(batch(status[:3]), values[[0, 2]])
    recorder.start()  # a pass that begins again
    for start, stop in ((0, 2), (2, 7), (7, 8)):
        ok = [i for i in range(start, stop) if status[i] == "ok"]
        recorder.add(batch(status[start:stop]), values[ok])
    recorder.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "_features-00000-of-00002.npy",
        "_features-00001-of-00002.npy",
    ]
    features = Features([features_path(path) for path, _ in parts], [5, 3])
    expected = values.astype(np.float16)
    expected[1] = np.nan
    assert (features.shape, features.dtype) == ((8, 4), np.float16)
    np.testing.assert_array_equal(np.asarray(features), expected)
    order = np.array([7, 0, 6, 4, 5])
    np.testing.assert_array_equal(features[order], expected[order])
    np.testing.assert_array_equal(features[2:6], expected[2:6])
    np.testing.assert_array_equal(features[-1], expected[-1])
    np.testing.assert_array_equal(features[np.arange(8) > 4], expected[5:])
    with pytest.raises(IndexError, match="must lie in"):
        features[np.array([8])]


def test_rows_before_the_first_with_features_hold_nan(tmp_path):
    path = tmp_path / "_features-00000-of-00001.npy"
    file = FeatureFile(path, 3, 3)
    file.add(None, 2)
    file.add(np.ones((1, 2), np.float32), 1)
    file.commit()
    found = np.load(path)
    assert np.isnan(found[:2]).all()
    assert found[2].tolist() == [1, 1]


def test_a_part_without_any_features_has_its_rows_all_the_same(tmp_path):
    paths = [features_path(path) for path, _ in parts_of(tmp_path, 2, 1)]
    first, second = FeatureFile(paths[0], 2, 3), FeatureFile(paths[1], 1, 3)
    first.add(None, 2)
    second.add(np.ones((1, 3), np.float32), 1)
    first.commit()
    second.commit()
    features = Features(paths, [2, 1])
    assert features.shape == (3, 3)
    assert np.isnan(features[:2]).all()


def test_a_part_whose_values_exceed_float16_is_float32(tmp_path, caplog):
    path = tmp_path / "_features-00000-of-00001.npy"
    file = FeatureFile(path, 3, 3)
    file.add(np.array([[1.5, np.inf]], np.float32), 1)
    with caplog.at_level(logging.WARNING):
        file.add(np.array([[1e5, 3.25]], np.float32), 1)
    file.add(np.array([[-1e6, 0]], np.float32), 1)
    file.commit()
    assert np.load(path).tolist() == [[1.5, np.inf], [1e5, 3.25], [-1e6, 0]]
    assert "exceed float16" in caplog.text
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_file_with_rows_missing_never_takes_its_place(tmp_path):
    path = tmp_path / "_features-00000-of-00001.npy"
    file = FeatureFile(path, 3, 3)
    file.add(np.ones((2, 2), np.float32), 2)
    with pytest.raises(ValueError, match="must hold 3 rows, got 2"):
        file.commit()
    file.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["missing", "truncated", "other rows"])
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "_features-00000-of-00001.npy"
    np.save(path, np.ones((7, 2), np.float16))
    rows = 6 if damage == "other rows" else 7
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    assert not is_complete(path, rows)
    with pytest.raises(ValueError, match=r"_features-00000.*start the same run again"):
        Features([path], [rows])
