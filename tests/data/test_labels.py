"""Labels of any integer type, and rows without one."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lc_engine.data.labels import MISSING
from lc_engine.data.open import open_source

KINDS = ("int8", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def features(rows):
    return np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("form", ["parquet", "datasets", "arrays", "npy", "safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_integer_type(tmp_path, kind, form, null):
    x, y = features(6), (np.arange(6) % 3).astype(kind)
    if null and form not in ("parquet", "datasets"):
        pytest.skip("arrays hold no null")
    labels = pa.array(y, mask=np.arange(6) == 2 if null else None)
    table = pa.table({"f": pa.array(x.tolist(), pa.list_(pa.float32())), "label": labels})
    if form == "parquet":
        pq.write_table(table, tmp_path / "t.parquet")
        source = open_source(tmp_path / "t.parquet")
    elif form == "datasets":
        source = open_source(pytest.importorskip("datasets").Dataset(table))
    elif form == "arrays":
        source = open_source((torch.from_numpy(x), torch.from_numpy(y)))
    elif form == "npy":
        np.save(tmp_path / "x.npy", x)
        np.save(tmp_path / "y.npy", y)
        source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    else:
        pytest.importorskip("safetensors.numpy").save_file(
            {"f": x, "label": y}, tmp_path / "t.safetensors"
        )
        source = open_source(tmp_path / "t.safetensors")
    batch = next(source.batches(6))
    assert batch.labels.tolist() == [0, 1, -1 if null else 2, 0, 1, 2]
    assert list(batch.detail) == ["", "", MISSING if null else "", "", "", ""]


def test_a_label_beyond_64_bits_is_named():
    y = np.array([0, 2**64 - 1], np.uint64)
    batch = next(open_source((torch.from_numpy(features(2)), torch.from_numpy(y))).batches(2))
    assert list(batch.detail) == ["", "the label is 18446744073709551615, but must fit 64 bits"]


def test_lines_without_a_label_say_so(tmp_path):
    values = [1, None, "cat", 1.5, 10**30, -2]
    lines = [json.dumps({"f": [1.0, 2.0], "label": value}) for value in values]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    batch = next(open_source(tmp_path / "t.jsonl").batches(6))
    assert list(batch.detail) == [
        "", MISSING, "the label must be an integer, got 'cat'",
        "the label must be an integer, got 1.5",
        f"the label is {10**30}, but must fit 64 bits", "the label is -2",
    ]  # fmt: skip
