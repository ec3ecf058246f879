"""Files with bytes cut, flipped, removed or put in: rows with a status or an error that names them.

Anything else that a reader raises is a defect, as is a process that ends or hangs.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

from lc_engine.data.open import open_source
from lc_engine.language.source import open_records

ROWS, WIDTH, SIDE = 12, 5, 6
GROUP = 5  # rows of a Parquet row group
PUT_IN = [
    b"9" * 401,
    b"9" * 5000,
    b"[" * 3000,
    b"NaN",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"-",
    b"1e400",
    b"null",
    b"\n",
    b"{",
    b'"\\ud800"',
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file of every format."""
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    y = np.arange(ROWS) % 3
    talk = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(ROWS)]
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    safetensors.numpy.save_file({"features": x, "labels": y}, folder / "x.safetensors")
    numbers = lines(
        {"f": [round(float(v), 3) for v in row], "label": int(label)}
        for row, label in zip(x, y, strict=True)
    )
    (folder / "x.jsonl").write_bytes(numbers)
    for codec, suffix in (("gzip", "gz"), ("zstd", "zst")):
        with pa.CompressedOutputStream(str(folder / f"x.jsonl.{suffix}"), codec) as file:
            file.write(numbers)
    table = pa.table({"f": list(x), "label": y})
    options = {"row_group_size": GROUP, "compression": "none", "write_page_checksum": True}
    pq.write_table(table, folder / "x.parquet", **options)
    (folder / "talk.jsonl").write_bytes(lines(talk))
    (folder / "talk.json").write_text(json.dumps(talk, indent=1))
    pq.write_table(pa.Table.from_pylist(talk), folder / "talk.parquet", row_group_size=GROUP)
    images = [png(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(ROWS)]
    structs = [{"bytes": content, "path": None} for content in images]
    pq.write_table(pa.table({"image": structs, "label": y}), folder / "images.parquet")
    with tarfile.open(folder / "images.tar", "w") as tar:
        for i, content in enumerate(images):
            for name, part in ((f"{i:03}.png", content), (f"{i:03}.cls", b"%d" % y[i])):
                info = tarfile.TarInfo(name)
                info.size = len(part)
                tar.addfile(info, io.BytesIO(part))
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(str(folder / "x"))
    datasets.Dataset.from_list(talk).save_to_disk(str(folder / "talk"))
    datasets.enable_progress_bars()
    return folder


def png(pixels):
    content = io.BytesIO()
    PIL.Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def pixels(image):
    return torch.from_numpy(np.asarray(image, np.float32))


def read(folder, name):
    """Read all rows of a data set; (id, status, label, input) each."""
    if name.startswith("talk"):
        records = open_records(folder / name)
        assert len(records.digest()) == 64
        found = list(records.read(0, len(records)))
        assert len(found) == len(records)
        return found
    labels = folder / "y.npy" if name == "x.npy" else None
    source = open_source(folder / name, labels=labels, transform=pixels, num_workers=0)
    assert len(source.digest()) == 64
    rows = []
    for batch in source.batches(4):
        inputs = iter(batch.inputs)
        for row, status, label in zip(
            batch.ids.tolist(), batch.status, batch.labels.tolist(), strict=True
        ):
            value = next(inputs) if status == "ok" else None
            rows.append((row, status, label, None if value is None else value.numpy().tobytes()))
    assert len(rows) == len(source)
    return rows


def damaged(content: bytes, rng: random.Random) -> bytes:
    found, at = bytearray(content), rng.randrange(len(content))
    kind = rng.randrange(6)
    if kind == 0:
        del found[at:]
    elif kind == 1:
        for _ in range(rng.randrange(1, 4)):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        found[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
    elif kind == 3:
        del found[at : at + rng.randrange(1, 30)]
    elif kind == 4:
        found[at : at + 9] = bytes(9)
    else:
        found[at:at] = rng.choice(PUT_IN)
    return bytes(found)


DATA_SETS = [
    *(("x.npy", file) for file in ("x.npy", "y.npy")),
    *((name, name) for name in ("x.safetensors", "x.jsonl", "x.jsonl.gz", "x.jsonl.zst")),
    *((name, name) for name in ("x.parquet", "talk.jsonl", "talk.json", "talk.parquet")),
    *((name, name) for name in ("images.parquet", "images.tar")),
    *(
        (name, f"{name}/{file}")
        for name in ("x", "talk")
        for file in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), DATA_SETS)
def test_damage_gives_statuses_or_an_error_that_names_the_file(whole, tmp_path, name, file):
    content = (whole / file).read_bytes()
    endings = set()
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for entry in {name, "y.npy"}:
            copy = shutil.copytree if (whole / entry).is_dir() else shutil.copy
            copy(whole / entry, folder / entry)
        (folder / file).write_bytes(damaged(content, random.Random(f"{file} {seed}")))
        try:
            read(folder, name)
            text = None
        except (ValueError, OSError) as error:
            text = f"{seed}: {error!r}"
        known = (name, file.rpartition("/")[2], "feature_column", "label_column")
        assert text is None or any(part in text for part in known), text
        endings.add("rows" if text is None else "error")
        shutil.rmtree(folder)
    assert ("rows" if file.endswith(".jsonl") else "error") in endings


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.jsonl", "x.parquet", "images.tar"])
def test_the_rows_beside_a_damaged_one_stay_bit_for_bit(whole, tmp_path, name):
    before = read(whole, name)
    content = (whole / name).read_bytes()
    rng = random.Random(name)
    changed = set()
    for row in (0, 4, ROWS - 1):
        start, stop = bytes_of_row(content, name, row)
        found = bytearray(content)
        found[start:stop] = bytes(b % 10 or 48 for b in rng.randbytes(stop - start))
        (tmp_path / name).write_bytes(found)
        shutil.copy(whole / "y.npy", tmp_path / "y.npy")
        group = range(row // GROUP * GROUP, (row // GROUP + 1) * GROUP)
        touched = set(group) if name == "x.parquet" else {row}
        after = read(tmp_path, name)
        assert len(after) == ROWS
        for i in range(ROWS):
            if i not in touched:
                assert after[i] == before[i]
        changed |= {i for i in range(ROWS) if after[i] != before[i]}
    assert changed >= {0, 4, ROWS - 1}


def bytes_of_row(content: bytes, name: str, row: int) -> tuple[int, int]:
    """Return where the input of a row lies in a file."""
    if name == "x.jsonl":
        ends = [i for i, byte in enumerate(content) if byte == 10]
        return (ends[row - 1] + 1 if row else 0), ends[row]
    if name == "images.tar":
        starts = [i for i in range(len(content)) if content.startswith(b"\x89PNG", i)]
        return starts[row], content.index(b"IEND", starts[row])
    size = 4 * WIDTH
    array = np.load(io.BytesIO(_npy_of(content, name)))
    start = content.index(array[row].tobytes())
    return start, start + size


def _npy_of(content: bytes, name: str) -> bytes:
    if name == "x.npy":
        return content
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    np.save(buffer, rng.standard_normal((ROWS, WIDTH)).astype(np.float32))
    return buffer.getvalue()


def refused(folder, name, match):
    with pytest.raises(ValueError, match=match) as caught:
        read(folder, name)
    assert name in str(caught.value)


def test_a_header_that_numpy_cannot_tokenize_is_named(whole, tmp_path):
    content = (whole / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"}", b"(", 1))
    shutil.copy(whole / "y.npy", tmp_path / "y.npy")
    refused(tmp_path, "x.npy", "cannot be read as a .npy array")


def test_a_header_of_fewer_numbers_than_the_file_holds_is_refused(whole, tmp_path):
    content = (whole / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(12, 5)", b"(12, 4)"))
    shutil.copy(whole / "y.npy", tmp_path / "y.npy")
    refused(tmp_path, "x.npy", "has 368 bytes, but its header says 320: it holds more than one")
    with (tmp_path / "x.npy").open("wb") as file:
        for _ in range(2):
            np.save(file, np.zeros((ROWS, WIDTH), np.float32))
    refused(tmp_path, "x.npy", "more than one array")


def test_a_row_group_of_other_rows_than_the_footer_says_is_refused(tmp_path, monkeypatch):
    table = pa.table({"f": [[1.0, 2.0]] * 6, "label": [0, 1] * 3})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    whole = pq.ParquetFile.iter_batches
    for rows, text in ((2, "1 rows fewer than its footer says"), (4, "1 rows more")):

        def cut(self, *args, rows=rows, **kwargs):
            for piece in whole(self, *args, **kwargs):
                twice = pa.Table.from_batches([piece, piece]).combine_chunks()
                yield twice.slice(0, rows).to_batches()[0]

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", cut)
        source = open_source(tmp_path / "x.parquet")
        (batch,) = source.batches(6)
        assert len(batch.status) == 6
        assert any(text in detail for detail in batch.detail)


def test_a_text_that_is_not_utf8_is_the_status_of_its_row(tmp_path):
    text = pa.array([b"good", b"\xff", b"fine"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": text, "completion": text}), tmp_path / "talk.parquet")
    found = [record.fields for record in read(tmp_path, "talk.parquet")]
    assert [fields if isinstance(fields, dict) else fields.status for fields in found] == [
        {"prompt": "good", "completion": "good"},
        "unreadable",
        {"prompt": "fine", "completion": "fine"},
    ]


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="pyarrow 19 brought the type")
def test_a_json_text_that_is_none_is_the_status_of_its_row(tmp_path):
    texts = pa.array(['{"a": 1}', "{", "[" * 100_000]).cast(pa.json_())
    pq.write_table(pa.table({"prompt": texts, "completion": ["a"] * 3}), tmp_path / "talk.parquet")
    first, *others = (record.fields for record in read(tmp_path, "talk.parquet"))
    assert first == {"prompt": {"a": 1}, "completion": "a"}
    assert [fields.status for fields in others] == ["unreadable"] * 2


def test_offsets_of_a_damaged_arrow_file_are_found_before_they_are_followed(whole, tmp_path):
    shutil.copytree(whole / "talk", tmp_path / "talk")
    path = tmp_path / "talk" / "data-00000-of-00001.arrow"
    offsets = np.arange(0, 3 * (ROWS + 1), 3, dtype=np.int32)
    offsets[-2:] = 32, 34  # "q 0" to "q 9" have 3 characters, the last two 4
    content = path.read_bytes()
    assert offsets[:10].tobytes() in content
    path.write_bytes(content.replace(offsets[2:4].tobytes(), b"\xff\xff\xff\x7f" * 2, 1))
    refused(tmp_path, "talk", "rows 0 to 11 of the data set .* are damaged")
