"""Rows as data sets of today hold them: calls, flags, parts, histories, preference pairs."""

from __future__ import annotations

import json

import pytest

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats import conversations, detect

CALL = {"type": "function", "function": {"name": "hours", "arguments": {"shop": 7}}}
TOOL = {"type": "function", "function": {"name": "hours", "parameters": {"type": "object"}}}


def turn(role, content, **fields):
    return {"role": role, "content": content, **fields}


def read(row):
    (said,) = conversations(row, detect(row))
    return said


def asked(*answer, question="?", **fields):
    return {"messages": [turn("user", question), *answer], **fields}


CALLS = {
    "OpenAI's": turn("assistant", None, tool_calls=[CALL]),
    "empty content": turn("assistant", "", tool_calls=[CALL]),
    "JSON text": turn("assistant", None, tool_calls=json.dumps([CALL])),
    "without a type": turn("assistant", None, tool_calls=[{"function": CALL["function"]}]),
    "the older form": turn("assistant", None, function_call=CALL["function"]),
    "null calls beside it": turn(
        "assistant", None, tool_calls=None, function_call=CALL["function"], name=None
    ),
    "ShareGPT's": {"from": "function_call", "value": json.dumps(CALL["function"])},
}


@pytest.mark.parametrize("answer", CALLS.values(), ids=CALLS)
def test_a_call_is_what_the_assistant_says_however_it_is_written(answer):
    assert read(asked(answer)).messages[1] == turn("assistant", "", tool_calls=[CALL])


def test_arguments_stay_as_given_and_ids_stay():
    given = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":  1}'}}
    made = read(asked(turn("assistant", "Let me see.", tool_calls=[given]))).messages[1]
    assert made["content"] == "Let me see."
    assert made["tool_calls"] == [given]


def test_calls_in_a_row_are_one_turn_and_reasoning_precedes_them():
    one, two = ({"name": name, "arguments": {}} for name in "ab")
    row = {
        "conversations": [
            {"from": "human", "value": "?"},
            {"from": "function_call", "value": f"<think>Well.</think>\n{json.dumps(one)}"},
            {"from": "function_call", "value": json.dumps(two)},
            {"from": "observation", "value": '{"open": true}'},
            {"from": "gpt", "value": "Yes."},
        ]
    }
    said = read(row).messages
    assert [m["role"] for m in said] == ["user", "assistant", "tool", "assistant"]
    assert said[1]["content"] == "<think>Well.</think>"
    assert [c["function"]["name"] for c in said[1]["tool_calls"]] == ["a", "b"]
    assert said[2]["content"] == '{"open": true}'


BARE = TOOL["function"]
TOOLS = {
    "list": ("tools", [TOOL]),
    "JSON text": ("tools", json.dumps([TOOL])),
    "LLaMA-Factory's": ("tools", json.dumps([BARE])),
    "JSON text each": ("tools", [json.dumps(TOOL)]),
    "the older form": ("functions", [BARE]),
}


@pytest.mark.parametrize(("name", "value"), TOOLS.values(), ids=TOOLS)
def test_tools_of_the_row_reach_the_template(name, value):
    assert read(asked(turn("assistant", "!"), **{name: value})).tools == [TOOL]


@pytest.mark.parametrize("value", [None, [], "", "[]"])
def test_no_tools_are_none(value):
    assert read(asked(turn("assistant", "!"), tools=value)).tools is None


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_one_name(name):
    made = read(asked(turn("assistant", "42", **{name: "17 + 25"}))).messages[1]
    assert made == turn("assistant", "42", reasoning_content="17 + 25")
    part = {"type": "thinking", "thinking": "17 + 25"}
    said = turn("assistant", [part, {"type": "text", "text": "42"}])
    assert read(asked(said)).messages[1] == made


@pytest.mark.parametrize("flag", ["weight", "train", "training", "trainable", "loss", "loss_mask"])
@pytest.mark.parametrize("off", [0, 0.0, False])
def test_a_flag_makes_an_answer_context(flag, off):
    row = asked(
        turn("assistant", "Nine.", **{flag: off}),
        turn("user", "Sure?"),
        turn("assistant", "Seven.", **{flag: type(off)(1)}),
    )
    assert read(row).counts == [True, False, True, True]
    assert flag not in read(row).messages[1]
    row["messages"][1].pop(flag), row["messages"][3].pop(flag)
    assert read(row).counts is None


def test_a_turn_field_that_only_a_template_may_know_is_passed_on_and_noted_once(caplog):
    from lc_engine.language.formats import flags

    flags._note.cache_clear()
    for _ in range(2):
        made = read(asked(turn("assistant", "!", mood="calm", id=7, timestamp="now")))
        assert made.messages[1] == turn("assistant", "!", mood="calm")
    assert [r.getMessage() for r in caplog.records] == [
        "turns have the field 'mood', which is passed to the chat template and not used otherwise"
    ]


HISTORY = [["Chile?", "Santiago."], ["Ecuador?", "Quito."]]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "And", "input": "Peru?", "output": "Lima.", "history": HISTORY},
        {"instruction": "And", "query": "Peru?", "response": "Lima.", "history": HISTORY},
        {"query": "And\nPeru?", "response": "Lima.", "history": json.dumps(HISTORY)},
        {"prompt": "And\nPeru?", "response": "Lima.", "history": HISTORY},
    ],
)
def test_earlier_rounds_precede_the_question(row):
    said = read(row | {"system": "Be brief."})
    assert [(m["role"], m["content"]) for m in said.messages] == [
        ("system", "Be brief."),
        *(
            (role, text)
            for pair in HISTORY
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ),
        ("user", "And\nPeru?"),
        ("assistant", "Lima."),
    ]


@pytest.mark.parametrize("none", [None, [], ""])
def test_no_history_is_no_round(none):
    row = {"instruction": "Peru?", "input": "", "output": "Lima.", "history": none}
    assert len(read(row).messages) == 2


TURNS = [turn("user", "?"), turn("assistant", "!")]


@pytest.mark.parametrize(
    "value", [json.dumps(TURNS), {"role": ["user", "assistant"], "content": ["?", "!"]}]
)
def test_turns_as_json_text_or_as_a_struct_of_lists(value):
    assert read({"messages": value}).messages == TURNS


def test_plain_prompt_and_completion_are_joined_without_a_template():
    assert read({"prompt": "2 + 2 =", "completion": " 4"}).raw
    assert not read({"prompt": "2 + 2?", "response": "4"}).raw
    assert not read({"prompt": "2 + 2?", "completion": "4", "system": "Be brief."}).raw
    listed = {"prompt": TURNS[:1], "completion": TURNS[1:]}
    assert not read(listed).raw
    assert read(listed).counts is None


def test_answers_in_a_prompt_do_not_count():
    said = read({"prompt": [*TURNS, turn("user", "??")], "completion": [turn("assistant", "!!")]})
    assert said.counts == [True, False, True, True]


def test_template_variables_of_the_row():
    for value in ({"enable_thinking": False}, '{"enable_thinking": false}'):
        row = asked(turn("assistant", "!"), chat_template_kwargs=value)
        assert read(row).template_kwargs == {"enable_thinking": False}


BAD = {
    "an image part": (
        asked(
            turn("assistant", "A cat."),
            question=[{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {}}],
        ),
        "not_text",
        r"content of messages\[0\] has a part of type image_url",
    ),
    "a placeholder": (
        {
            "conversations": [
                {"from": "human", "value": "<image>\nWhat?"},
                {"from": "gpt", "value": "A cat."},
            ]
        },
        "not_text",
        r"conversations\[0\] has the placeholder <image>",
    ),
    "a column of images": (
        asked(turn("assistant", "A cat."), images=["a.png"]),
        "not_text",
        "the row has a value for images",
    ),
    "an unknown weight": (
        asked(turn("assistant", "!", weight=0.5)),
        "bad_field",
        r"messages\[1\] has weight: 0.5; known are 0 and 1",
    ),
    "a flag as text": (asked(turn("assistant", "!", train="false")), "bad_field", "'false'"),
    "flags that disagree": (
        asked(turn("assistant", "!", train=True, weight=0)),
        "bad_field",
        "flags that disagree: weight, train",
    ),
    "a flag of two meanings": (
        asked(turn("assistant", "!", mask=True)),
        "bad_field",
        "has mask: True, of which it is not settled .*; name it one of weight, train",
    ),
    "a flag of parts of a text": (
        asked(turn("assistant", "!", train_detail=[{"begin_offset": 0, "train": False}])),
        "bad_field",
        "has train_detail: ",
    ),
    "a flag by another name": (
        asked(turn("assistant", "!", isMasked=False)),
        "bad_field",
        "has isMasked: False",
    ),
    "a prompt that whole answers do not repeat": (
        {
            "prompt": "Chile?",
            "chosen": [turn("user", "Capital of Chile?"), turn("assistant", "Santiago.")],
            "rejected": [turn("user", "Capital of Chile?"), turn("assistant", "Lima.")],
        },
        "bad_field",
        "chosen begins with a turn of the user and does not repeat the prompt",
    ),
    "a call that is no JSON": (
        {"conversations": [{"from": "function_call", "value": "hours(7)"}]},
        "bad_field",
        "must hold calls with a name and arguments, got a str that begins 'hours",
    ),
    "tools that are none": (
        asked(turn("assistant", "!"), tools="hours"),
        "bad_field",
        "tools must be a list of functions or JSON of one, got a str that begins 'hours'",
    ),
    "calls of the user": (
        {"messages": [turn("user", "?", tool_calls=[CALL])]},
        "bad_field",
        "which only an assistant makes",
    ),
    "two systems": (
        {"messages": [turn("system", "a"), *TURNS], "system": "b"},
        "bad_field",
        "a system turn with another text",
    ),
    "rounds that are no pairs": (
        {"instruction": "?", "output": "!", "history": [["a"]]},
        "bad_field",
        r"history\[0\] must be a pair",
    ),
    "a struct of unequal lists": (
        {"messages": {"role": ["user"], "content": []}},
        "missing_field",
        "must be a list of turns, got a dict with role, content",
    ),
    "text that is no JSON": (
        {"messages": "user: hi"},
        "missing_field",
        "must be a list of turns, got a str that begins 'user: hi'",
    ),
}


@pytest.mark.parametrize(("row", "status", "says"), BAD.values(), ids=BAD)
def test_what_is_not_understood_has_a_status_that_names_it(row, status, says):
    with pytest.raises(RowError, match=says) as caught:
        conversations(row, detect(row))
    assert caught.value.status == status


def test_a_tag_with_its_end_is_markup_and_not_a_placeholder():
    row = {
        "conversations": [
            {"from": "human", "value": "Explain <video></video>."},
            {"from": "gpt", "value": "<image> is a tag of SVG."},
        ]
    }
    assert len(read(row).messages) == 2


def test_a_null_image_column_is_none():
    assert len(read(asked(turn("assistant", "!"), images=None, image=None)).messages) == 2


ASKED, GOOD, BAD_ANSWER = turn("user", "?"), turn("assistant", "yes"), turn("assistant", "no")
PAIRS = {
    "lists": {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD_ANSWER]},
    "whole lists": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD_ANSWER]},
    "whole lists and the prompt as text": {
        "prompt": "?",
        "chosen": [ASKED, GOOD],
        "rejected": [ASKED, BAD_ANSWER],
    },
    "JSON text": {
        "prompt": json.dumps([ASKED]),
        "chosen": json.dumps([GOOD]),
        "rejected": json.dumps([BAD_ANSWER]),
    },
    "a question": {"question": "?", "chosen": "yes", "rejected": "no"},
    "LLaMA-Factory's Alpaca": {"instruction": "?", "input": "", "chosen": "yes", "rejected": "no"},
    "LLaMA-Factory's ShareGPT": {
        "conversations": [{"from": "human", "value": "?"}],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no"},
    },
}


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_a_preference_pair_is_two_conversations(row):
    assert detect(row) == "preference"
    chosen, rejected = conversations(row, "preference")
    assert chosen.messages == [ASKED, GOOD]
    assert rejected.messages == [ASKED, BAD_ANSWER]
    assert not chosen.raw
    assert chosen.counts is None


def test_plain_preference_texts_are_joined_without_a_template():
    for row in (
        {"prompt": "Human: ? Assistant:", "chosen": " yes", "rejected": " no"},
        {"chosen": "Human: ? Assistant: yes", "rejected": "Human: ? Assistant: no"},
    ):
        chosen, rejected = conversations(row, "preference")
        assert chosen.raw
        assert rejected.raw
        assert [m["content"] for m in chosen.messages] == ["Human: ? Assistant:", " yes"]
        assert [m["content"] for m in rejected.messages] == ["Human: ? Assistant:", " no"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("q: ab c", "q: ab d", "q: ab"),
        ("q: ab ", "q: ab c", "q: ab"),
        ("q: ab  c", "q: ab  ", "q: ab "),
    ],
)
def test_whole_texts_are_split_where_trl_splits_them(chosen, rejected, prompt):
    """The results of TRL 1.16's `extract_prompt`."""
    found = conversations({"chosen": chosen, "rejected": rejected}, "preference")
    assert [one.messages[0]["content"] for one in found] == [prompt] * 2
    assert [one.messages[1]["content"] for one in found] == [
        text.removeprefix(prompt) for text in (chosen, rejected)
    ]


def test_answers_before_the_last_question_of_a_pair_do_not_count():
    before = [turn("user", "hi"), turn("assistant", "hello"), ASKED]
    chosen, _ = conversations(
        {"prompt": before, "chosen": [GOOD], "rejected": [GOOD]}, "preference"
    )
    assert chosen.counts == [True, False, True, True]


def test_a_pair_without_a_prompt_is_refused():
    with pytest.raises(RowError, match="begin differently, and the row has no prompt; it has"):
        conversations({"ask": "?", "chosen": "yes", "rejected": "no"}, "preference")
