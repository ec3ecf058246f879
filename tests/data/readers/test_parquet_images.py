from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.images import encode, to_tensor
from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


def write(path, content, labels, struct, **options):
    if struct:
        content = [{"bytes": one, "path": "x.png"} for one in content]
    pq.write_table(pa.table({"image": content, "label": labels}), path, **options)


@pytest.mark.parametrize("struct", [False, True])
def test_images_of_a_folder_read_as_one(tmp_path, struct):
    pixels = images(23)
    content, labels = [encode(one) for one in pixels], list(range(23))
    write(tmp_path / "a.parquet", content[:9], labels[:9], struct, row_group_size=4)
    write(tmp_path / "b.parquet", content[9:], labels[9:], struct, row_group_size=100)
    source = open_source(tmp_path, transform=to_tensor, num_workers=2)
    want = [
        (i, (pixels[i].transpose(2, 0, 1) / np.float32(255)).astype(np.float32), i, "ok", "")
        for i in range(23)
    ]
    for batch_size in (1, 5, 100):
        assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, 3, 7, 20), want[7:20])
    assert source.describe()["kind"] == "parquet_images"


def test_each_bad_row_keeps_its_index(tmp_path):
    content: list[bytes | None] = [encode(one) for one in images(12)]
    content[1], content[2], content[3] = None, b"no image", content[3][:60]
    labels: list[int | None] = list(range(12))
    labels[4], labels[5] = None, -3
    path = tmp_path / "x.parquet"
    write(path, content, labels, False, row_group_size=6, compression="none")
    damaged = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(1).column(0)
    page = column.dictionary_page_offset or column.data_page_offset
    damaged[page : page + 8] = b"\xff" * 8
    path.write_bytes(damaged)
    rows = read_rows(open_source(path, transform=to_tensor), 5)
    assert [row[3] for row in rows] == [
        "ok",
        *["unreadable"] * 3,
        *["bad_label"] * 2,
        *["unreadable"] * 6,
    ]
    assert [row[2] for row in rows[:4]] == [0, 1, 2, 3]
    assert "null" in rows[1][4]
    assert "row group 1 of x.parquet" in rows[8][4]


def test_features_go_before_images_unless_these_are_asked_for(tmp_path):
    content = [encode(one) for one in images(2)]
    table = pa.table({"image": content, "emb": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert open_source(tmp_path).describe()["kind"] == "parquet"
    asked = open_source(tmp_path, feature_column="image", transform=to_tensor)
    assert asked.describe()["feature_column"] == "image"
    with pytest.raises(ValueError, match="'no' does not exist; the columns are image"):
        open_source(tmp_path, feature_column="no")


PATH = pa.struct({"path": pa.string()})
STRUCTS = {
    "path": PATH,
    "large path": pa.struct({"path": pa.large_string()}),
    "null bytes": pa.struct({"bytes": pa.null(), "path": pa.string()}),
    "null bytes last": pa.struct({"path": pa.string(), "bytes": pa.null()}),
    "large bytes": pa.struct({"bytes": pa.large_binary(), "path": pa.string()}),
}


@pytest.mark.parametrize("kind", STRUCTS)
def test_a_struct_of_paths_alone_holds_images(tmp_path, kind):
    pixels = images(3)
    for i, one in enumerate(pixels):
        (tmp_path / f"{i}.png").write_bytes(encode(one))
    rows = [{"path": str(tmp_path / f"{i}.png")} for i in (0, 1, 2, 3)]
    column = pa.array([*rows, None], STRUCTS[kind])
    pq.write_table(pa.table({"picture": column, "label": range(5)}), tmp_path / "x.parquet")
    for asked in (None, "picture"):
        source = open_source(
            tmp_path / "x.parquet", transform=to_tensor, num_workers=0, feature_column=asked
        )
        found = read_rows(source, 2)
        assert [row[3] for row in found] == ["ok"] * 3 + ["unreadable"] * 2
        for row, one in zip(found, pixels, strict=False):
            np.testing.assert_array_equal(row[1], to_tensor(Image.fromarray(one)).numpy())


def test_bytes_go_before_paths_and_other_structs_are_no_images(tmp_path):
    file, labels = tmp_path / "x.parquet", range(2)
    content = [encode(one) for one in images(2)]
    paths = pa.array([{"path": "a"}, {"path": "b"}], PATH)
    pq.write_table(pa.table({"from": paths, "image": content, "label": labels}), file)
    assert open_source(file, transform=to_tensor).describe()["feature_column"] == "image"
    named = open_source(file, transform=to_tensor, feature_column="from")
    assert named.describe()["feature_column"] == "from"
    pq.write_table(pa.table({"from": paths, "to": paths, "label": labels}), file)
    with pytest.raises(ValueError, match="2 columns are encoded images"):
        open_source(file, transform=to_tensor)
    for other in ({"path": "a", "size": 1}, {"path": 1}, {"name": "a"}):
        pq.write_table(pa.table({"meta": [other] * 2, "label": labels}), file)
        for asked in (None, "meta"):
            with pytest.raises(ValueError, match=r"feature_column.* meta|'meta' is struct"):
                open_source(file, transform=to_tensor, feature_column=asked)


def test_an_image_without_bytes_is_read_through_its_path_as_datasets_does(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    pixels = images(3)
    (tmp_path / "cwd" / "a.png").write_bytes(encode(pixels[0]))
    (tmp_path / "b.png").write_bytes(encode(pixels[1]))
    structs = [
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": str(tmp_path / "b.png")},
        {"bytes": encode(pixels[2]), "path": "a.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": "https://example.org/a.png"},
        {"bytes": None, "path": ".."},
    ]
    for i, one in enumerate(structs[:3]):
        theirs = np.asarray(datasets.Image().decode_example(one))
        np.testing.assert_array_equal(theirs, pixels[i])
    with pytest.raises(FileNotFoundError):
        datasets.Image().decode_example(structs[3])
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(structs, kind), "label": list(range(7))})
    pq.write_table(table, tmp_path / "x.parquet")
    saved = datasets.Dataset(table).cast_column("image", datasets.Image(decode=False))
    for data in (tmp_path / "x.parquet", saved.cast_column("image", datasets.Image())):
        rows = read_rows(open_source(data, transform=to_tensor), 4)
        assert [row[3] for row in rows] == [*["ok"] * 3, *["unreadable"] * 4]
        for row, want in zip(rows, pixels, strict=False):
            np.testing.assert_array_equal(row[1], want.transpose(2, 0, 1) / np.float32(255))
        assert f"no file b.png in the working directory, {tmp_path / 'cwd'}" in rows[3][4]
        assert "missing (null)" in rows[4][4]
        assert "is a URL: download it first" in rows[5][4]
