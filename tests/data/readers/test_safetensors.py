from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int32, torch.int64])
def test_it_reads_as_the_tensors_do(tmp_path, dtype, label_dtype):
    features = torch.randn(23, 4, 2).to(dtype)
    labels = torch.arange(23, dtype=label_dtype)
    save_file({"z": torch.zeros(3), "x": features, "label": labels}, tmp_path / "x.safetensors")
    source = open_source(tmp_path / "x.safetensors")
    want = read_rows(open_source((features, labels)), 50)
    for batch_size in (1, 5, 50):
        assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, 4, 3, 20), want[3:20])
    assert source.describe()["dtype"] == str(dtype).removeprefix("torch.")


def test_bad_rows(tmp_path):
    features = torch.ones(3, 2, dtype=torch.bfloat16)
    features[1, 0] = torch.nan
    save_file({"x": features, "y": torch.tensor([0, 1, -5])}, tmp_path / "x.safetensors")
    rows = read_rows(open_source(tmp_path / "x.safetensors"), 2)
    assert [row[3] for row in rows] == ["ok", "non_finite", "bad_label"]


def test_tensors_are_named_or_found(tmp_path):
    path = tmp_path / "x.safetensors"
    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    save_file({"a": x, "b": x + 1, "y": y, "other": y[:2].clone()}, path)
    with pytest.raises(ValueError, match=r"feature_column must be named: 2 fit.*b \(F32"):
        open_source(path)
    with pytest.raises(ValueError, match=r"label_column must be named: 2"):
        open_source(path, feature_column="b")
    with pytest.raises(ValueError, match=r"'no' does not fit"):
        open_source(path, feature_column="no")
    with pytest.raises(ValueError, match=r"other must have shape \(3,\)"):
        open_source(path, feature_column="b", label_column="other")
    source = open_source(path, feature_column="b", label_column="y")
    np.testing.assert_array_equal(read_rows(source, 3)[0][1], [1, 1])


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"no", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors is not a \.safetensors file"):
        open_source(tmp_path / "x.safetensors")


def test_a_file_that_was_cut_short(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(50, 2), "y": torch.zeros(50, dtype=torch.int64)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated"):
        open_source(path)
