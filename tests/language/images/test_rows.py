from __future__ import annotations

import json

import pytest

from lc_engine.data.readers.records import RowError
from lc_engine.language.images.rows import read_conversations

IMAGE = {"type": "image"}


def text(said):
    return {"type": "text", "text": said}


def messages(*contents):
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": one} for role, one in zip(roles, contents, strict=False)]


def turns(*values):
    roles = ("human", "gpt") * len(values)
    return [{"from": role, "value": one} for role, one in zip(roles, values, strict=False)]


ASKED = [IMAGE, text("What?")]
# Rows that all say the same: the image a.png, "What?", "A cat."
SAME = {
    "a part and a column": ("messages", {"messages": messages(ASKED, "A cat."), "images": ["a"]}),
    "a part with a path": (
        "messages", {"messages": messages([IMAGE | {"path": "a"}, text("What?")], "A cat.")}
    ),
    "OpenAI's part": (
        "messages",
        {
            "messages": messages(
                [{"type": "image_url", "image_url": {"url": "a"}}, text("What?")],
                [text("A cat.")],
            )
        },
    ),
    "fields that Arrow fills with null": (
        "messages",
        {
            "messages": messages(
                [{"type": "image", "text": None, "index": 0},
                 {"type": "text", "text": "What?", "index": None}],
                [{"type": "text", "text": "A cat.", "index": None}],
            ),
            "images": ["a"],
        },
    ),
    "LLaVA": ("sharegpt", {"conversations": turns("<image>\nWhat?", "A cat."), "image": "a"}),
    "LLaVA, at the end": (
        "sharegpt", {"conversations": turns("What?\n<image>", "A cat."), "image": "a"}
    ),
    "a placeholder in a text": (
        "messages", {"messages": messages("<image>What?", "A cat."), "images": ["a"]}
    ),
    "a column alone": ("messages", {"messages": messages("What?", "A cat."), "images": ["a"]}),
    "JSON text, as in CSV": (
        "messages", {"messages": json.dumps(messages(ASKED, "A cat.")), "images": '["a"]'}
    ),
    "a struct of lists": (
        "messages",
        {"messages": {"role": ["user", "assistant"], "content": ["<image>What?", "A cat."]},
         "images": ["a"]},
    ),
    "Alpaca": ("alpaca", {"instruction": "<image>What?", "output": "A cat.", "images": ["a"]}),
    "prompt and completion": (
        "prompt_completion", {"prompt": "<image>What?", "completion": "A cat.", "images": ["a"]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_images_are_found_in_every_form(kind):
    form, row = SAME[kind]
    before = json.dumps(row)
    (said,) = read_conversations(row, form)
    assert [image.value for image in said.images] == ["a"]
    parts = ASKED if kind != "LLaVA, at the end" else [text("What?"), IMAGE]
    asked, answer = said.messages
    assert asked == {"role": "user", "content": parts}
    assert answer == {"role": "assistant", "content": "A cat."}
    assert not said.raw
    assert json.dumps(row) == before


def test_images_of_parts_and_of_the_column_keep_their_order():
    asked = [IMAGE, text("and"), IMAGE | {"url": "own"}, text("and"), IMAGE]
    row = {"messages": messages(asked, "ok", "<image> more", "ok"), "images": ["a", "b", "c"]}
    (said,) = read_conversations(row, "messages")
    assert [image.value for image in said.images] == ["a", "own", "b", "c"]
    assert said.messages[2]["content"] == [IMAGE, text(" more")]


def test_both_answers_of_a_pair_have_the_image():
    row = {"prompt": "<image>What?", "chosen": "A cat.", "rejected": "A dog.", "images": ["a"]}
    for said in read_conversations(row, "preference"):
        assert [image.value for image in said.images] == ["a"]
        assert said.messages[0]["content"] == ASKED


def test_a_row_without_images_is_what_it_is_for_text():
    row = {"messages": messages("a </image> tag <image>", "yes"), "images": []}
    (said,) = read_conversations(row, "messages")
    assert said.images == ()
    assert said.messages == row["messages"]


WRONG = {
    "more places": ({"messages": messages("<image> <image>", "x"), "images": ["a"]}, "image_count",
                    "more places for images than images: 1 in its column"),
    "no image": ({"messages": messages("<image>What?", "x")}, "image_count", "0 in its column"),
    "fewer places": ({"messages": messages("<image>", "x"), "images": ["a", "b"]}, "image_count",
                     "2 images in its column, and places for 1"),
    "an index": ({"messages": messages([IMAGE | {"index": 3}], "x"), "images": ["a"]},
                 "image_count", "is image 3"),
    "another order": ({"messages": messages([IMAGE | {"index": 1}, IMAGE | {"index": 0}], "x"),
                       "images": ["a", "b"]}, "bad_field", "in their order"),
    "in an answer": ({"messages": messages("What?", "See <image>"), "images": ["a"]}, "not_text",
                     "an answer holds an image"),
    "a video": ({"messages": messages([{"type": "video", "video": "v"}], "x")}, "not_text",
                "a part of type video"),
    "a sound": ({"messages": messages([{"type": "input_audio"}], "x")}, "not_text", "input_audio"),
    "a column of videos": ({"messages": messages("hi", "x"), "videos": ["v"]}, "not_text",
                           "a value for videos"),
    "a placeholder of a video": ({"messages": messages("<video>hi", "x")}, "not_text", "<video>"),
    "another part": ({"messages": messages([{"type": "card"}], "x")}, "not_text", "card"),
    "a noncharacter": ({"messages": messages("\ufdd00\ufdd1", "x")}, "bad_field", "U\\+FDD0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_not_understood_has_a_status(kind):
    row, status, detail = WRONG[kind]
    with pytest.raises(RowError, match=detail) as caught:
        read_conversations(row, "messages")
    assert caught.value.status == status
