"""What the writers of single formats do with odd files; `prune` tests the usual ones."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.images import pack
from lc_engine.data.writers.arrays import copy_npy
from lc_engine.data.writers.image_files import link_files
from lc_engine.data.writers.json_rows import copy_lines, count_lines, line_bytes
from lc_engine.data.writers.parquet import copy_parquet
from lc_engine.data.writers.tars import copy_samples

LINES = [b'{"a": 1}\r\n', b"\n", b'  {"a": "\xc3\xa9"}\n', b'{"a": 3}\n', b'{"a": 4}']


def compressed(suffix, content):
    if suffix == ".gz":
        return gzip.compress(content)
    return pa.compress(content, codec="zstd", asbytes=True) if suffix == ".zst" else content


def opened(path):
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            return stream.read()
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_are_copied_byte_for_byte_and_compressed_alike(tmp_path, suffix):
    path, out = tmp_path / f"in.jsonl{suffix}", tmp_path / f"out.jsonl{suffix}"
    path.write_bytes(compressed(suffix, b"".join(LINES)))
    assert count_lines(path) == 4
    assert line_bytes(path).tolist() == [10, len(LINES[2]), 9, 8]
    copy_lines(path, np.array([0, 1, 3]), out)
    assert opened(out) == LINES[0] + LINES[2] + LINES[4] + b"\n"
    first = out.read_bytes()
    copy_lines(path, np.array([0, 1, 3]), out)
    assert out.read_bytes() == first  # no time in it
    with pytest.raises(ValueError, match="changed while it was read"):
        copy_lines(path, np.array([4]), out)


def test_row_groups_without_kept_rows_are_not_read(tmp_path):
    table = pa.table({"x": [f"{i:0100d}" for i in range(60)], "y": np.arange(60)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=20, use_dictionary=False)
    content = bytearray((tmp_path / "in.parquet").read_bytes())
    place = pq.read_metadata(tmp_path / "in.parquet").row_group(1).column(0).data_page_offset
    content[place : place + 40] = b"\xff" * 40
    (tmp_path / "in.parquet").write_bytes(content)
    copy_parquet([(tmp_path / "in.parquet", np.array([3, 45]))], tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(table.take([3, 45]))
    with pytest.raises(ValueError, match=r"in\.parquet cannot be read as Parquet: row group 1"):
        copy_parquet([(tmp_path / "in.parquet", np.array([25]))], tmp_path / "out.parquet")


def test_kept_rows_are_gathered_in_few_row_groups(tmp_path):
    table = pa.table({"y": np.arange(50_000)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=500)
    kept = np.arange(0, 50_000, 5)
    copy_parquet([(tmp_path / "in.parquet", kept)], tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("y").to_pylist() == kept.tolist()
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups == 2


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<i8"])
def test_rows_of_an_array_keep_their_dtype_and_byte_order(tmp_path, dtype):
    x = np.arange(60).reshape(20, 3).astype(dtype)
    np.save(tmp_path / "in.npy", x)
    copy_npy(tmp_path / "in.npy", np.array([1, 19]), tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x[[1, 19]])


def test_of_a_link_the_file_that_it_leads_to_is_taken(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "real.png").write_bytes(b"1")
    (tmp_path / "in" / "a" / "b.png").symlink_to(tmp_path / "real.png")
    assert link_files(tmp_path / "in", ["a/b.png"], tmp_path / "out") == 0
    assert (tmp_path / "out" / "a" / "b.png").samefile(tmp_path / "real.png")
    assert not (tmp_path / "out" / "a" / "b.png").is_symlink()


def test_a_sample_that_an_archive_no_longer_has_is_missed(tmp_path):
    pack(tmp_path / "in.tar", [("a.png", b"1"), ("a.cls", b"2")])
    with pytest.raises(ValueError, match="has no sample 'b'"):
        copy_samples(tmp_path / "in.tar", {"a", "b"}, tmp_path / "out.tar")
