from __future__ import annotations

import pytest

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats import check_format, conversations, detect


def said(role, content):
    return {"role": role, "content": content}


ASKED = [said("user", "2 + 2?"), said("assistant", "4")]
SYSTEM = [said("system", "Be brief."), *ASKED]

CASES = {
    "alpaca": ("alpaca", {"instruction": "2 + 2?", "input": "", "output": "4"}, ASKED),
    "alpaca with input": (
        "alpaca",
        {"instruction": "Add", "input": "2, 2", "output": "4"},
        [said("user", "Add\n2, 2"), said("assistant", "4")],
    ),
    "alpaca without input": ("alpaca", {"instruction": "2 + 2?", "output": "4"}, ASKED),
    "sharegpt": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "2 + 2?"},
                {"from": "gpt", "value": "4"},
            ]
        },
        SYSTEM,
    ),
    "sharegpt, system apart": (
        "sharegpt",
        {
            "system": "Be brief.",
            "conversation": [{"from": "user", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}],
        },
        SYSTEM,
    ),
    "messages": (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
                {"role": "assistant", "content": "4"},
            ]
        },
        SYSTEM,
    ),
    "prompt and completion": ("prompt_completion", {"prompt": "2 + 2?", "completion": "4"}, ASKED),
    "prompt and response": ("prompt_completion", {"prompt": "2 + 2?", "response": "4"}, ASKED),
    "prompt and completion as turns": (
        "prompt_completion",
        {
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "2 + 2?"},
            ],
            "completion": [{"role": "assistant", "content": "4"}],
        },
        SYSTEM,
    ),
}


@pytest.mark.parametrize(("form", "row", "turns"), CASES.values(), ids=CASES)
def test_every_format_is_detected_and_read(form, row, turns):
    assert detect(row) == form
    assert conversations(row, form)[0].messages == turns


BAD = {
    "not an object": ("alpaca", ["2 + 2?"], "bad_field", "named fields, got a list"),
    "no field": (
        "alpaca",
        {"instruction": "?"},
        "missing_field",
        "the row lacks output or response; it has",
    ),
    "empty": ("messages", {}, "missing_field", "it has no fields"),
    "null": ("alpaca", {"instruction": "?", "output": None}, "missing_field", "lacks output"),
    "a number": (
        "alpaca",
        {"instruction": "?", "output": 4},
        "missing_field",
        "output of the row must be a text, got int",
    ),
    "a number as input": (
        "alpaca",
        {"instruction": "?", "input": 4, "output": "4"},
        "missing_field",
        "input of the row must be a text, got int",
    ),
    "no turns": ("messages", {"messages": []}, "missing_field", "messages has no turns"),
    "not a list": ("messages", {"messages": "hi"}, "missing_field", "must be a list of turns"),
    "a turn that is a text": (
        "messages",
        {"messages": ["hi"]},
        "missing_field",
        r"messages\[0\] must have the fields role and content",
    ),
    "a turn without text": (
        "messages",
        {"messages": [{"role": "user"}]},
        "missing_field",
        r"messages\[0\] lacks content or value",
    ),
    "an unknown speaker": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "?"}, {"from": "bard", "value": "!"}]},
        "unknown_role",
        r"conversations\[1\] has role 'bard'; known are system",
    ),
}


@pytest.mark.parametrize(("form", "row", "status", "says"), BAD.values(), ids=BAD)
def test_a_bad_row_says_what_is_wrong(form, row, status, says):
    with pytest.raises(RowError, match=says) as caught:
        conversations(row, form)
    assert caught.value.status == status


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="fields text, which match no known format"):
        detect({"text": "a b c"})
    with pytest.raises(ValueError, match="form must be one of alpaca, sharegpt"):
        check_format("parrot")
