from __future__ import annotations

import numpy as np
import pytest

from helpers import tiny_language_model as tiny
from lc_engine.language.conversation import Conversation
from lc_engine.language.template import Encoder


def turn(role, content):
    return {"role": role, "content": content}


TALK = [
    turn("system", "s"),
    turn("user", "hello?"),
    turn("assistant", "hello there"),
    turn("user", "in?"),
    turn("assistant", "the  in"),
]


def encoder(template=tiny.TEMPLATE, window=256, **options):
    return Encoder(tiny.tokenizer(template), window=window, **options)


def encode(messages, **options):
    made = encoder(**options)
    return made, made.encode([Conversation(messages)])[0]


def responses(made, row):
    """The text of each run of response tokens."""
    ids, mask = row.tokens
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [made.tokenizer.decode(ids[a:b]) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("turns", "found"), [("all", ["hello there", "the  in"]), ("last", ["the  in"])]
)
def test_the_response_is_what_the_assistant_says(turns, found):
    made, row = encode(TALK, turns=turns)
    assert row.status == "ok"
    assert responses(made, row) == found
    whole = made.tokenizer.apply_chat_template(TALK, tokenize=False)
    # The row ends with the last response: a causal model never sees what follows.
    assert whole.startswith(made.tokenizer.decode(row.tokens.ids))
    assert row.tokens.response[-1]


@pytest.mark.parametrize("said", ["\nhello", "hello\n", "\n\nll\n", "é漢", " in", "a"])
def test_no_token_straddles_the_boundary(said):
    """In this vocabulary "\\n\\n" is a token, and the template has "\\n" before the response."""
    made, row = encode([turn("user", "hello"), turn("assistant", said)])
    assert responses(made, row) == [said]


def test_text_is_tokenized_whole_where_no_token_straddles():
    made, row = encode(TALK)
    whole = made.tokenizer.apply_chat_template(TALK, tokenize=False)
    ids = made.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert row.tokens.ids.tolist() == ids[: len(row.tokens.ids)]


def test_a_template_may_strip_texts_and_add_a_system_text():
    stripping = (
        "{% if messages[0]['role'] != 'system' %}be kind {% endif %}"
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{% endfor %}"
    )
    made, row = encode([turn("user", " hello "), turn("assistant", "  in \n")], template=stripping)
    assert responses(made, row) == ["in"]
    assert made.tokenizer.decode(row.tokens.ids) == "be kind [user]hello[assistant]in"


def test_without_a_template_it_is_alpacas_headings():
    made, row = encode(TALK[:3], template=None)
    assert responses(made, row) == ["hello there"]
    text = made.tokenizer.decode(row.tokens.ids)
    assert text == "<s>s\n\n### Instruction:\nhello?\n\n### Response:\nhello there"
    assert made.describe()["template"] == "plain"


def test_a_long_row_is_truncated():
    _, whole = encode(TALK)
    first = int(whole.tokens.response.argmax())
    _, row = encode(TALK, window=first + 3)
    asked = int(whole.tokens.response.sum())
    assert row.status == "ok"
    assert row.detail == f"truncated: 3 of {asked} response tokens are scored"
    assert row.tokens.ids.tolist() == whole.tokens.ids[: first + 3].tolist()
    # A window that reaches into the next question keeps the response, not the question.
    end = first + int(whole.tokens.response[first:].argmin())
    _, row = encode(TALK, window=end + 2)
    assert len(row.tokens.ids) == end
    _, row = encode(TALK, window=first)
    assert (row.tokens, row.status) == (None, "too_long")
    assert row.detail == f"{first} tokens precede the response, the window has {first}"


@pytest.mark.parametrize("said", ["", "  \n"])
def test_an_empty_response_has_a_status_of_its_own(said):
    _, row = encode([turn("user", "hello"), turn("assistant", said)])
    assert row == (None, "empty_response", "no assistant turn has any text")
    # Another turn that has text still counts.
    made, row = encode([turn("assistant", said), turn("user", "?"), turn("assistant", "a")])
    assert responses(made, row) == ["a"]


def test_no_assistant_is_an_empty_response():
    _, row = encode([turn("user", "hello")])
    assert row.status == "empty_response"


def test_the_first_token_is_never_a_target():
    _, row = encode([turn("assistant", "a")], template="{{ messages[0]['content'] }}")
    assert row == (None, "empty_response", "the response has no token")


REJECTED = {
    "rejecting": (
        "{{ raise_exception('users first') }}",
        "a",
        "the chat template rejects the row: users first",
    ),
    "dropping": ("{{ messages[0]['content'] }}", "a", "it does not write every turn"),
    "changing": (
        "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
        "a",
        "the chat template changes the texts of this row",
    ),
    "half a pair": (tiny.TEMPLATE, "a\ud800", "half of a surrogate pair"),
}


@pytest.mark.parametrize(("template", "said", "says"), REJECTED.values(), ids=REJECTED)
def test_a_row_that_the_template_cannot_render_is_unreadable(template, said, says):
    _, row = encode([turn("user", "hello"), turn("assistant", said)], template=template)
    assert (row.tokens, row.status) == (None, "unreadable")
    assert says in row.detail


def test_arguments_that_do_not_fit():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="Slow has no character offsets"):
        Encoder(Slow(), window=10)
    with pytest.raises(ValueError, match="window must be at least 2"):
        encoder(window=1)
    with pytest.raises(ValueError, match="turns must be one of"):
        encoder(turns="first")


def test_the_description_tells_tokenizers_and_templates_apart():
    one, same, other = encoder(), encoder(), encoder(template="{{ messages }}")
    assert one.describe() == same.describe()
    assert one.describe()["template_digest"] != other.describe()["template_digest"]
    more = tiny.tokenizer()
    more.add_tokens(["hello"])
    assert (
        Encoder(more, window=256).describe()["tokenizer_digest"]
        != one.describe()["tokenizer_digest"]
    )
