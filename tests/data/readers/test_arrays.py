from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source


def made(seed: int, rows: int, width: int, dtype: str = "float32"):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, width)).astype(dtype)
    return features, rng.integers(0, 7, rows)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_memory_and_file_give_the_rows_whatever_the_batch_size(tmp_path, seed, dtype):
    features, labels = made(seed, 53, 5, dtype)
    np.save(tmp_path / "x.npy", features)
    np.save(tmp_path / "y.npy", labels.astype(np.int32))
    want = [(i, features[i], int(labels[i]), "ok", "") for i in range(53)]
    sources = [
        open_source((features, labels)),
        open_source((torch.from_numpy(features), torch.from_numpy(labels))),
        open_source(
            torch.utils.data.TensorDataset(torch.from_numpy(features), torch.from_numpy(labels))
        ),
        open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy"),
    ]
    for source in sources:
        assert len(source) == 53
        for batch_size in (1, 7, 53, 100):
            assert_same(read_rows(source, batch_size), want)
        assert_same(read_rows(source, 4, 10, 23), want[10:23])
        assert read_rows(source, 4, 20, 20) == []


def test_inputs_of_any_shape_and_byte_order(tmp_path):
    images = np.random.default_rng(3).random((6, 3, 4, 2)).astype(">f4")
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.arange(6))
    rows = read_rows(open_source(str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy")), 4)
    np.testing.assert_array_equal(np.stack([row[1] for row in rows]), images)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_bad_rows_keep_their_index(tmp_path, batch_size):
    features, labels = made(5, 20, 6)
    features[3, 2], features[7, 0], features[8, 5] = np.nan, np.inf, -np.inf
    labels[[8, 11]] = -4
    # Finite numbers whose sum is not.
    features[12] = np.finfo(np.float32).max
    np.save(tmp_path / "x.npy", features)
    np.save(tmp_path / "y.npy", labels)
    for source in (
        open_source((features, labels)),
        open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy"),
    ):
        rows = read_rows(source, batch_size)
        assert [row[0] for row in rows] == list(range(20))
        bad = {row[0]: row[3] for row in rows if row[3] != "ok"}
        assert bad == {3: "non_finite", 7: "non_finite", 8: "bad_label", 11: "bad_label"}
        assert [rows[i][2] for i in (8, 11)] == [-1, -1]
        assert rows[3][2] == labels[3]
        assert "-4" in rows[11][4]


def test_no_rows():
    source = open_source((np.zeros((0, 4), np.float32), np.zeros(0, np.int64)))
    assert len(source) == 0
    assert list(source.batches(8)) == []
    assert len(source.digest()) == 64


def test_a_batch_is_a_copy():
    features, labels = made(0, 4, 3)
    batch = next(open_source((features, labels)).batches(4))
    batch.inputs.zero_()
    assert features.any()


def test_read_only_data_is_read_without_a_warning():
    features, labels = made(0, 4, 3)
    features.flags.writeable = labels.flags.writeable = False
    assert len(read_rows(open_source((features, labels)), 3)) == 4


def test_digest_follows_the_content(tmp_path):
    features, labels = made(1, 9, 3)
    first = open_source((features, labels)).digest()
    assert open_source((features.copy(), labels.copy())).digest() == first
    other = features.copy()
    other[8, 2] += 1
    assert open_source((other, labels)).digest() != first
    assert open_source((features, labels + 1)).digest() != first

    np.save(tmp_path / "x.npy", features)
    np.save(tmp_path / "y.npy", labels)
    digest = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy").digest()
    assert open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy").digest() == digest
    np.save(tmp_path / "x.npy", np.concatenate([features, features])[:9, ::-1].copy())
    assert open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy").digest() != digest


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Pages of a memory map would stay with the process; blocks read into fresh memory do not."""
    rows, width = 60_000, 256
    np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(rows, width)
    ).flush()
    np.save(tmp_path / "y.npy", np.zeros(rows, np.int64))
    source = open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")

    def resident(batch):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    seen = [resident(batch) for batch in source.batches(512)]
    assert max(seen) - min(seen) < 0.3 * rows * width * 4


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.array([Evil(), Evil()], dtype=object), np.zeros(2, int), "pickled Python objects"),
        (np.zeros((4, 2), np.float32), np.zeros(3, int), r"shape \(4,\)"),
        (np.zeros((4, 2), np.int64), np.zeros(4, int), "x.npy must be float16"),
        (np.zeros(4, np.float32), np.zeros(4, int), r"\(N, ...\)"),
        (np.zeros((4, 2), np.float32), np.zeros(4, np.float32), "y.npy must be integers"),
        (np.zeros((4, 2), np.float32), np.zeros((4, 1), int), r"shape \(4,\)"),
        (np.asfortranarray(np.ones((4, 2), np.float32)), np.zeros(4, int), "ascontiguousarray"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, features, labels, message):
    np.save(tmp_path / "x.npy", features, allow_pickle=True)
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")


def test_damaged_files(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros(4, int))
    np.save(tmp_path / "x.npy", np.zeros((4, 2), np.float32))
    whole = (tmp_path / "x.npy").read_bytes()
    for content in (b"", b"hello", whole[:-5]):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npy"):
            open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"\.npz"):
        open_source(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    (tmp_path / "x.npy").write_bytes(whole)
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        open_source(tmp_path / "x.npy", labels=tmp_path / "none.npy")


def test_ranges_outside_the_source():
    source = open_source(made(0, 9, 2))
    for arguments in ((0,), (4, -1), (4, 3, 10), (4, 6, 5)):
        with pytest.raises(ValueError, match=r"batch_size|rows"):
            source.batches(*arguments)


@pytest.mark.parametrize(
    ("data", "keywords", "message"),
    [
        ((torch.zeros(3, 2), [0, 1, 2]), {}, "pair"),
        ((torch.zeros(3, 2),), {}, "pair"),
        (iter([]), {}, "read only once"),
        (3, {}, "int is not a data set"),
        (torch.utils.data.DataLoader([(1, 2)]), {}, "pass its .dataset"),
        ((torch.zeros(3, 2), torch.zeros(3)), {}, "labels must be integers"),
        ((torch.zeros(3, 2), torch.zeros(3, dtype=torch.int)), {"labels": "y.npy"}, "goes with"),
    ],
)
def test_objects_that_are_no_data_set(data, keywords, message):
    with pytest.raises(ValueError, match=message):
        open_source(data, **keywords)


def test_paths_that_are_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"known are \.npy"):
        open_source(tmp_path / "x.csv")
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="labels"):
        open_source(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"goes with a \.npy"):
        open_source(tmp_path, labels="y.npy")


def test_bfloat16_features_are_widened():
    features = torch.randn(5, 3).bfloat16()
    rows = read_rows(open_source((features, torch.arange(5))), 2)
    np.testing.assert_array_equal(np.stack([r[1] for r in rows]), features.float().numpy())
