from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.images import encode, pack, to_tensor
from helpers.reading import assert_same, read_rows
from lc_engine.data.locations import is_remote, to_path
from lc_engine.data.open import open_source

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed (extra remote)")


@pytest.fixture
def bucket():
    folder = upath.UPath("memory://bucket/set")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    folder.rmdir(recursive=True)


def test_parquet_at_a_url_reads_like_local_parquet(tmp_path, bucket):
    x = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(x.ravel(), 4), "label": range(30)})
    for name, rows in (("a.parquet", table[:20]), ("b.parquet", table[20:])):
        pq.write_table(rows, tmp_path / name, row_group_size=7)
        (bucket / name).write_bytes((tmp_path / name).read_bytes())
    want = read_rows(open_source(tmp_path), 50)
    for location in (str(bucket), bucket):
        source = open_source(location)
        assert_same(read_rows(source, 4), want)
        assert_same(read_rows(source, 3, 11, 27), want[11:27])
    one = open_source(f"{bucket}/b.parquet")
    assert [row[2] for row in read_rows(one, 50)] == list(range(20, 30))


def test_tar_at_a_url(tmp_path, bucket):
    image = encode(np.zeros((4, 5, 3), np.uint8))
    pack(tmp_path / "x.tar", [("0.png", image), ("0.cls", b"3")])
    (bucket / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes())
    want = read_rows(open_source(tmp_path / "x.tar", transform=to_tensor), 1)
    assert_same(read_rows(open_source(f"{bucket}/x.tar", transform=to_tensor), 1), want)


def test_other_kinds_of_data_at_a_url_are_refused(bucket):
    with pytest.raises(FileNotFoundError, match=r"memory://bucket/set/none\.parquet"):
        open_source(f"{bucket}/none.parquet")
    (bucket / "x.npy").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"of URLs only \.parquet and \.tar are read"):
        open_source(f"{bucket}/x.npy", labels="y.npy")


def test_local_paths_stay_as_they_are(tmp_path):
    assert to_path(str(tmp_path)) == tmp_path
    assert not is_remote(tmp_path)
