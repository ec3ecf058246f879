from __future__ import annotations

import gzip
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import lc_engine as lc
from lc_engine.data.batch import OK, UNREADABLE
from lc_engine.integrations.files import write_subset
from lc_engine.integrations.hf import subset, with_scores

LINES = [
    b'{"prompt": "a",   "completion": "\xc3\xa9"}\n',
    b"\n",
    b'{"completion": "1.0", "prompt": 1.0}\r\n',
    b"not json\n",
    b'{"prompt": "last", "completion": "no newline"}',
]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_lines_are_copied_byte_for_byte(tmp_path, suffix):
    opened = gzip.open if suffix.endswith("gz") else open
    data, out = tmp_path / f"data{suffix}", tmp_path / "new" / f"out{suffix}"
    with opened(data, "wb") as target:
        target.writelines(LINES)
    # An empty line is not a row, so row 3 is the fifth line; invalid JSON is a row.
    assert write_subset(data, np.array([3, 0, 2]), out) == 3
    with opened(out, "rb") as written:
        assert written.read() == LINES[0] + LINES[3] + LINES[4] + b"\n"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_list_keeps_the_fields_of_its_rows(tmp_path):
    rows = [{"instruction": f"é {i}", "nested": [{"a": None}, i]} for i in range(5)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    assert write_subset(tmp_path / "data.json", [4, 1], tmp_path / "out.json") == 2
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert json.loads(text) == [rows[1], rows[4]]
    assert "é 4" in text


def test_parquet_keeps_its_schema(tmp_path):
    dataset = datasets.Dataset.from_dict(
        {"x": [[float(i), 2.0] for i in range(50)], "label": [i % 3 for i in range(50)]},
        features=datasets.Features(
            {
                "x": datasets.Sequence(datasets.Value("float32"), length=2),
                "label": datasets.ClassLabel(names=["a", "b", "c"]),
            }
        ),
    )
    folder = tmp_path / "data"
    folder.mkdir()
    for part, rows in enumerate((range(20), range(20, 50))):
        dataset.select(rows).to_parquet(folder / f"part-{part}.parquet", batch_size=7)
    keep = np.array([0, 6, 7, 19, 20, 33, 49])
    assert write_subset(folder, keep, tmp_path / "out.parquet") == 7
    assert pq.read_schema(tmp_path / "out.parquet") == pq.read_schema(folder / "part-0.parquet")
    back = datasets.Dataset.from_parquet(
        str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert back.features == dataset.features
    assert back.to_list() == [dataset[int(i)] for i in keep]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([0, 4], "keep names row 4, but the data set has 4 rows"),
        ([-1], "keep names row -1"),
        ([2, 1, 2], "keep names row 2 twice"),
        ([0.0], "keep must be row indices"),
        (["a"], "keep must be row indices"),
    ],
)
def test_invalid_row_indices_are_named(tmp_path, keep, message):
    (tmp_path / "data.jsonl").write_bytes(b"".join(LINES))
    with pytest.raises(ValueError, match=message):
        write_subset(tmp_path / "data.jsonl", keep, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_invalid_files_are_named(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(b"".join(LINES))
    (tmp_path / "data.txt").write_text("a\n")
    (tmp_path / "data.json").write_text("{}")
    for data, out, message in (
        ("data.jsonl", "out.parquet", "out.parquet must end with .jsonl"),
        ("data.jsonl", "data.jsonl", "is the data itself"),
        ("data.txt", "out.txt", "must be one of .jsonl"),
        ("data.json", "out.json", "must hold a JSON list of rows"),
    ):
        with pytest.raises(ValueError, match=message):
            write_subset(tmp_path / data, [0], tmp_path / out)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_subset(tmp_path / "none.jsonl", [0], tmp_path / "out.jsonl")


def test_lone_surrogates_stay_the_escapes_that_they_were(tmp_path):
    content = rb'[{"a": "\ud800 \u00e9"}, {"\udfff": 1}, {"a": 2}]'
    (tmp_path / "data.json").write_bytes(content)
    assert write_subset(tmp_path / "data.json", [0, 1], tmp_path / "out.json") == 2
    written = (tmp_path / "out.json").read_bytes()
    assert rb"\ud800 " in written
    assert "é".encode() in written
    assert json.loads(written) == json.loads(content)[:2]
    (tmp_path / "data.jsonl").write_bytes(content[1:23] + b"\n")
    assert write_subset(tmp_path / "data.jsonl", [0], tmp_path / "out.jsonl") == 1
    assert (tmp_path / "out.jsonl").read_bytes() == content[1:23] + b"\n"


def test_damaged_data_are_named_and_leave_no_file(tmp_path):
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "whole.parquet")
    parquet = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "whole.parquet").unlink()
    for name, content, match in (
        ("x.jsonl", '{"a": 1}\n'.encode("utf-16"), "is UTF-16, but JSON Lines are UTF-8"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9)[:-6], "cannot be decompressed"),
        ("x.json", b'[{"a": 1}, {"a"', "cut short"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.parquet", parquet[:-9], "cannot be read as Parquet"),
        ("x.parquet", b"PAR1" + bytes(9) + parquet[13:], "cannot be read as Parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=match) as caught:
            write_subset(tmp_path / name, [0], tmp_path / f"out-{name}")
        assert str(tmp_path / name) in str(caught.value)
        assert not list(tmp_path.glob("*out*"))


def table(rows: int, ids=None) -> lc.ScoreTable:
    lc_ = np.linspace(0, 1, rows, dtype=np.float32)
    return lc.ScoreTable.from_arrays(
        ids=np.arange(rows) if ids is None else np.asarray(ids),
        labels=np.zeros(rows, np.int64),
        lc=lc_,
        loss=1 - lc_,
        lc_std=lc_ / 2,
        status=[UNREADABLE, *[OK] * (rows - 1)],
        detail=["broken", *[""] * (rows - 1)],
        metadata={},
    )


def test_columns_are_added_without_copying_the_data(tmp_path):
    dataset = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(10)]})
    dataset.save_to_disk(tmp_path / "saved")
    dataset = datasets.load_from_disk(tmp_path / "saved")
    scored = with_scores(dataset, table(10))
    assert scored.column_names == ["text", "lc", "loss", "lc_std", "status"]
    assert scored["text"][:] == dataset["text"][:]
    assert scored[0] == {
        "text": "row 0", "lc": None, "loss": None, "lc_std": None, "status": "unreadable"
    }  # fmt: skip
    assert scored[9]["lc"] == 1.0
    # The same Arrow file in the same memory map.
    assert scored.cache_files == dataset.cache_files
    address = dataset.data.column("text").chunk(0).buffers()[2].address
    assert scored.data.column("text").chunk(0).buffers()[2].address == address


def test_a_subset_has_no_list_of_indices():
    dataset = datasets.Dataset.from_dict({"x": list(range(10))})
    found = subset(dataset, np.array([7, 1, 3]))
    assert found["x"][:] == [1, 3, 7]
    assert found._indices is None
    assert found.features == dataset.features


def test_scores_of_other_rows_are_refused():
    dataset = datasets.Dataset.from_dict({"x": list(range(10)), "lc": [0.0] * 10})
    with pytest.raises(ValueError, match="has 9 rows and the data set 10"):
        with_scores(dataset, table(9))
    with pytest.raises(ValueError, match=r"must hold the row indices 0, 1, 2"):
        with_scores(dataset, table(10, ids=np.arange(10)[::-1]))
    with pytest.raises(ValueError, match="already has a column 'lc'"):
        with_scores(dataset, table(10))
    with pytest.raises(ValueError, match="scores has no 'perplexity'"):
        with_scores(dataset, table(10), ["perplexity"])


def test_a_data_set_scores_as_its_features_do(tmp_path):
    """From `lc.score` on a data set to a subset file, against scoring the same tensors."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator)
    y = torch.randint(0, 4, (80,), generator=generator)
    dataset = datasets.Dataset.from_dict({"x": x.tolist(), "label": y.tolist()})
    dataset = dataset.cast_column("x", datasets.Sequence(datasets.Value("float32"), length=6))
    head = torch.nn.Linear(6, 4)
    scorer = lc.Scorer(head, head="linear", masking=lc.Masking(weights="head"))
    scores, direct = lc.score(scorer, dataset), lc.score(scorer, (x, y))
    scored = with_scores(dataset, scores)
    np.testing.assert_array_equal(scored["lc"][:], direct.column("lc"))
    keep = lc.select(scores, 0.25, gamma=0.5)
    np.testing.assert_array_equal(keep, lc.select(direct, 0.25, gamma=0.5))
    dataset.to_parquet(tmp_path / "data.parquet")
    write_subset(tmp_path / "data.parquet", keep, tmp_path / "out.parquet")
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert written == subset(dataset, keep).to_list() == [dataset[int(i)] for i in keep]


def test_rows_of_csv_are_copied_as_they_are_written(tmp_path):
    data = tmp_path / "rows.csv"
    data.write_bytes(b'\xef\xbb\xbfprompt,completion\r\n"a\r\n""b""",c\r\n\r\nd,"e"\r\nf,g')
    out = tmp_path / "kept.csv"
    assert write_subset(data, [0, 2], out) == 2
    assert out.read_bytes() == b'\xef\xbb\xbfprompt,completion\r\n"a\r\n""b""",c\r\nf,g\n'
