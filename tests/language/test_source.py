from __future__ import annotations

import json

import pytest

from helpers import tiny_language_model as tiny
from lc_engine.language.source import InstructionSource, open_instructions
from lc_engine.language.template import Encoder

GOOD = {"prompt": "hello", "completion": "in"}
LINES = {
    json.dumps(GOOD): ("ok", ""),
    "{": ("invalid_json", "line 2: not JSON"),
    '{"prompt": "hello"}': ("missing_field", "line 3: the row lacks completion or response"),
    '{"prompt": "hello", "completion": " "}': ("empty_response", "line 4: the assistant says"),
    '"hello"': ("missing_field", "line 5: a row must be an object, this is a str"),
    '{"prompt": [{"role": "me", "content": ""}], "completion": "a"}': (
        "unknown_role",
        "line 6: prompt[0] has role 'me'",
    ),
    json.dumps({"prompt": "in " * 99, "completion": "a"}): ("too_long", "line 7: "),
    json.dumps({"prompt": "in", "completion": "a " * 99}): ("ok", "line 8: truncated: "),
    r'{"prompt": "\ud800", "completion": "a"}': ("unreadable", "line 9: half of a surrogate"),
    json.dumps(GOOD | {"more": 1}): ("ok", ""),
}


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny.tokenizer(), window=64)


@pytest.fixture
def source(encoder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES))
    return open_instructions(path, encoder)


def test_every_row_is_there_with_its_status(source):
    batch = next(source.batches(100))
    assert len(batch) == len(LINES)
    assert batch.ids.tolist() == list(range(10))
    for status, detail, (want, says) in zip(
        batch.status, batch.detail, LINES.values(), strict=True
    ):
        assert status == want
        assert detail.startswith(says)
        assert bool(detail) == bool(says)
    assert len(batch.inputs) == 3
    assert batch.inputs[0].ids.tolist() == batch.inputs[2].ids.tolist()
    assert batch.labels.tolist() == [-1] * 10


@pytest.mark.parametrize(
    ("size", "start", "stop"), [(3, 0, None), (4, 2, 9), (1, 9, 10), (5, 4, 4)]
)
def test_rows_are_the_same_in_any_batch(source, size, start, stop):
    whole = next(source.batches(100))
    stop = len(source) if stop is None else stop
    parts = list(source.batches(size, start, stop))
    assert sum(map(len, parts)) == stop - start
    assert [i for part in parts for i in part.ids] == list(range(start, stop))
    assert [d for part in parts for d in part.detail] == list(whole.detail[start:stop])


def test_the_form_is_told_by_the_first_object_or_named(encoder):
    detected = open_instructions([3, GOOD], encoder)
    assert detected.describe() == {
        "kind": "list",
        "rows": 2,
        "form": "prompt_completion",
        "form_is": "detected",
    }
    named = open_instructions([GOOD], encoder, "alpaca")
    assert named.describe()["form_is"] == "named"
    assert next(named.batches(1)).status == ["missing_field"]
    with pytest.raises(ValueError, match="which is no form that is known"):
        open_instructions([{"text": "a"}], encoder)
    with pytest.raises(ValueError, match="none of the first 100 rows is a JSON object"):
        open_instructions([3, "a"], encoder)
    with pytest.raises(ValueError, match="form must be one of"):
        InstructionSource(detected.records, encoder, "parrot")
