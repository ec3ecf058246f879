"""The same rows through every reader: the same conversations, tokens and scores."""

from __future__ import annotations

import csv
import json

import datasets
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.language.formats import conversations
from lc_engine.language.source import open_records


def call(**arguments):
    return [{"type": "function", "function": {"name": "f", "arguments": arguments}}]


def rows():
    """Rows whose turns have different fields, with content that JSON has to escape."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    return [
        {
            "messages": [
                {"role": "user", "content": 'a\n"b"\\ é'},
                {"role": "assistant", "content": "hello there", "weight": 0},
                {"role": "user", "content": "in?"},
                {"role": "assistant", "content": 'he said "tell"\n'},
            ],
            "tools": None,
        },
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "", "tool_calls": call(shop=7)},
                {"role": "tool", "content": '{"open": true}', "tool_call_id": "a"},
                {"role": "assistant", "content": "yes", "weight": 1},
            ],
            "tools": [tool],
        },
        {
            "messages": [
                {"role": "user", "content": "y"},
                {"role": "assistant", "content": "then", "tool_calls": call(day="Sunday")},
            ],
            "tools": [tool],
        },
    ]


def parts():
    """A column whose values are texts in one row and lists in another."""
    return [
        {
            "messages": [
                {"role": "user", "content": "Say two lines."},
                {"role": "assistant", "content": 'Line one\nhe said "hi"'},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Say one line."}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Only one."}]},
            ]
        },
    ]


def jsonl(rows, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def written(kind, rows, folder):
    path = folder / f"rows.{kind.partition(' ')[0]}"
    if kind == "jsonl":
        return jsonl(rows, path)
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0], dialect="excel-tab" if kind == "tsv" else "excel")
            table.writeheader()
            for row in rows:
                table.writerow({name: value and json.dumps(value) for name, value in row.items()})
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path = jsonl(rows, folder / "rows.jsonl")
        contents = [m["content"] for row in rows for m in row.get("messages", ())]
        if any(isinstance(one, list) for one in contents) and not hasattr(datasets, "Json"):
            pytest.skip("this datasets has no type for contents of two kinds")
        made = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
        )
        if kind == "loaded":
            return made
        if kind == "saved":
            made.save_to_disk(folder / "saved")
            return folder / "saved"
        made.to_parquet(folder / "hf.parquet")
        return folder / "hf.parquet"
    return path


KINDS = ["jsonl", "json", "csv", "tsv", "parquet", "loaded", "saved", "parquet of datasets"]


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


# Arrow has no type for `parts` without datasets.
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (kind, make)
        for kind in KINDS
        for make in (rows, parts)
        if (kind, make) != ("parquet", parts)
    ],
)
def test_every_reader_reads_the_same_conversations(kind, make, tmp_path):
    records = open_records(written(kind, make(), tmp_path))
    found = [conversations(record.fields, "messages") for record in records.read(0, len(records))]
    assert found == [conversations(row, "messages") for row in make()]


@pytest.mark.parametrize("kind", KINDS[2:])
def test_every_reader_scores_the_same(kind, tmp_path):
    scorer = lc.Scorer.for_causal_lm(
        tiny.model(), tiny.tokenizer(), path=lc.LearningPath.explicit([0.8])
    )
    alpaca = [
        {"instruction": "hello", "input": "", "output": "the bell", "system": "s"},
        {"instruction": "in", "input": "a\nb", "output": '"tell", he', "system": ""},
    ]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, alpaca[0])
        table.writeheader()
        table.writerows(alpaca)
    data = path if kind in ("csv", "tsv") else written(kind, alpaca, tmp_path)
    plain, found = lc.score(scorer, alpaca), lc.score(scorer, data)
    assert list(found.column("status")) == ["ok", "ok"]
    np.testing.assert_array_equal(found.column("lc"), plain.column("lc"))


def test_a_json_column_is_the_text_that_was_written(tmp_path):
    """No quotes or escapes are added to the tokens."""
    encoder = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer()).transform
    source = encoder.open_source(written("loaded", parts(), tmp_path))
    batch = next(source.batches(2))
    texts = [encoder.tokenizer.decode(row.ids[row.response]) for row in batch.inputs]
    assert texts == ['Line one\nhe said "hi"', "Only one."]


def test_features_of_datasets_are_read_as_their_values(tmp_path):
    features = datasets.Features(
        {
            "messages": [
                {
                    "role": datasets.ClassLabel(names=["user", "assistant"]),
                    "content": datasets.Value("large_string"),
                }
            ],
            "image": datasets.Image(),
            "grid": datasets.Array2D((1, 2), "float32"),
        }
    )
    said = [{"role": 0, "content": "?"}, {"role": 1, "content": "!"}]
    made = datasets.Dataset.from_list(
        [{"messages": said, "image": None, "grid": [[1, 2]]}], features=features
    )
    wanted = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    made.to_parquet(tmp_path / "a.parquet")
    for data in (made, tmp_path / "a.parquet"):
        (record,) = open_records(data).read(0, 1)
        assert conversations(record.fields, "messages")[0].messages == wanted


def test_a_list_of_structs_of_the_old_kind_is_a_list_of_turns():
    features = datasets.Features(
        {
            "conversations": datasets.Sequence(
                {name: datasets.Value("string") for name in ("from", "value")}
            )
        }
    )
    said = {"from": ["human", "gpt"], "value": ["?", "!"]}
    made = datasets.Dataset.from_list([{"conversations": said}], features=features)
    (record,) = open_records(made).read(0, 1)
    (found,) = conversations(record.fields, "sharegpt")
    assert [m["content"] for m in found.messages] == ["?", "!"]


def test_turns_in_pythons_notation_are_refused(tmp_path):
    said = str([{"role": "user", "content": "it's"}])
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), (said, "!")])
    scorer = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    batch = next(scorer.transform.open_source(path).batches(1))
    assert batch.status == ["bad_field"]
    assert "turns in Python's notation" in batch.detail[0]
