from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AddedToken, LlamaTokenizerFast, PreTrainedTokenizerFast

from helpers import tiny_language_model as tiny
from lc_engine._util import wheels as packages
from lc_engine.language.conversation import Conversation
from lc_engine.language.encoder import Encoder


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
    ids, mask = row.tokens[:2]
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


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ("\nhello", "\n\nhello"),  # "\n\n" is a token, and the header ends with "\n"
        ("hello\n", "hello\n"),
        ("\n\nll\n", "\n\n\nll\n"),
        ("é漢", "é漢"),
        (" in", " in"),
        ("a", "a"),
    ],
)
def test_a_token_counts_if_any_of_it_is_of_the_response(said, counted):
    made, row = encode([turn("user", "hello"), turn("assistant", said)])
    assert responses(made, row) == [counted]


@pytest.mark.parametrize("said", ["\nhello", "the  in", " hello\n"])
def test_the_ids_are_those_of_the_whole_text(said):
    talk = [turn("user", "hello"), turn("assistant", said)]
    made, row = encode(talk)
    ids = made.tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
    assert row.tokens.ids.tolist() == ids[: len(row.tokens.ids)]


def sentencepiece_like():
    """A BPE with SentencePiece's white space: a token of a word begins with its space, as "▁"."""
    words = [
        "▁Lima",
        "▁in",
        "▁Peru",
        "L",
        "i",
        "m",
        "a",
        "▁",
        ".",
        "[",
        "]",
        "I",
        "N",
        "S",
        "T",
        "/",
    ]
    letters = sorted({letter for word in words for letter in word} | set("PeruQ?nthc"))
    merges, known = [], set(letters)
    for word in ("▁Lima", "▁in", "▁Peru"):
        for end in range(2, len(word) + 1):
            if word[:end] not in known:
                merges.append((word[: end - 1], word[end - 1]))
                known.add(word[:end])
    names = ["<s>", "</s>", "<unk>", *sorted(known)]
    backend = Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_the_first_word_of_an_answer_counts_with_the_space_that_the_template_writes():
    tokenizer = sentencepiece_like()
    tokenizer.chat_template = INST
    talk = [
        turn("user", "Peru?"),
        turn("assistant", "Lima"),
        turn("user", "in"),
        turn("assistant", "Lima."),
    ]
    (row,) = Encoder(tokenizer, window=256).encode([Conversation(talk)])
    ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
    assert row.tokens.ids.tolist() == ids[:-1]
    counted = tokenizer.convert_ids_to_tokens(row.tokens.ids[row.tokens.response].tolist())
    assert counted == ["▁Lima", "▁Lima", "."]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"]
)
def test_mistrals_own_tokenizers_give_their_own_ids(model, tmp_path):
    pytest.importorskip("sentencepiece")
    data = packages.read("mistral-common", "1.13.1", f"mistral_common/data/{model}")
    (tmp_path / "tokenizer.model").write_bytes(data)
    tokenizer = LlamaTokenizerFast.from_pretrained(tmp_path)
    tokenizer.chat_template = INST
    said = ["It is Lima.", "Sí: ¡señor!\n\n- one\n", "def f(x):\n    return x", "👋🏽 ok", "No"]
    talk = [
        turn(role, text) for text in said for role, text in (("user", "What?"), ("assistant", text))
    ]
    (row,) = Encoder(tokenizer, window=4096).encode([Conversation(talk)])
    ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
    assert row.tokens.ids.tolist() == ids[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.tokens.response, [0]]).astype(int)))
    runs = [row.tokens.ids[a:b].tolist() for a, b in edges.reshape(-1, 2)]
    assert [tokenizer.decode(run).strip() for run in runs] == [text.strip() for text in said]


def test_an_added_token_counts_only_if_all_of_it_is_of_the_response():
    """Some take the white space beside them, here that of the response."""
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    tokenizer = tiny.tokenizer(template)
    tokenizer.add_tokens(
        [AddedToken("<|assistant|>", rstrip=True), AddedToken("<|end|>", lstrip=True)]
    )
    made = Encoder(tokenizer, window=256)
    row = made.encode([Conversation([turn("user", "hi"), turn("assistant", " in <|end|> a \n")])])[
        0
    ]
    assert responses(made, row) == ["in<|end|> a"]


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
    "dropping": (
        "{{ messages[0]['content'] }}",
        "a",
        "the template does not write the text of turn 2",
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


def test_a_flag_of_a_turn_makes_it_context():
    talk = Conversation(TALK, counts=[True, True, False, True, True])
    made = encoder()
    assert responses(made, made.encode([talk])[0]) == ["the  in"]
    none = Conversation(TALK, counts=[True, True, False, True, False])
    assert made.encode([none])[0] == (
        None,
        "empty_response",
        "a flag of each assistant turn makes it context",
    )


@pytest.mark.parametrize("last", ["the  in", "the  in</s>"])
def test_a_plain_prompt_and_completion_are_joined_as_trl_joins_them(last):
    talk = Conversation([turn("user", "hello t"), turn("assistant", last)], raw=True)
    made = encoder()
    row = made.encode([talk])[0]
    ids = made.tokenizer("hello tthe  in</s>")["input_ids"]
    assert row.tokens.ids.tolist() == ids[:-1]
    assert responses(made, row) == ["the  in"]
    # Where a template is asked for, it is rendered.
    asked = Encoder(tiny.tokenizer(None), window=256, chat_template=tiny.TEMPLATE)
    assert made.tokenizer.decode(asked.encode([talk])[0].tokens.ids).startswith("<s>user:\nhello t")


def test_the_marks_of_a_template_restrict_what_counts():
    template = (
        "{% for m in messages %}<s>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}{% endgeneration %}{{ m.note }}</s>{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}"
    )
    made, row = encode([turn("user", "hello"), turn("assistant", "in ")], template=template)
    assert responses(made, row) == ["in "]
    only = template.replace("{% generation %}{{ m.content }}", "{{ m.content }}{% generation %}a")
    _, row = encode([turn("user", "hello"), turn("assistant", "in ")], template=only)
    assert row.status == "empty_response"
    assert "marks none of the response" in row.detail


def test_a_token_without_an_embedding_is_said():
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<tool>"])
    new = tokenizer.convert_tokens_to_ids("<tool>")
    made = Encoder(tokenizer, window=256, vocabulary=new)

    def talk(text):
        return Conversation([turn("user", "a"), turn("assistant", text)])

    good, bad = made.encode([talk("plain"), talk("with <tool> in it")])
    assert good.status == "ok"
    assert bad.status == "unreadable"
    assert bad.detail.startswith(f"token {new} ('<tool>') is beyond the {new} tokens that the mod")
    # What is cut off is not read.
    cut = Encoder(tokenizer, window=good.tokens.ids.size + 3, vocabulary=new)
    assert cut.encode([talk("plain and more <tool>")])[0].status == "ok"


UNCLEAR = {
    "not closed": "<think>\nhe is in",
    "after a text": "well<think>he</think>hello",
    "two blocks": "<think>he</think>in<think>he</think>hello",
}


@pytest.mark.parametrize("said", UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("reasoning", ["context", "drop"])
def test_a_row_whose_reasoning_is_not_known_from_its_answer_says_so(said, reasoning):
    talk = Conversation([turn("user", "hi"), turn("assistant", said)])
    tokenizer = tiny.tokenizer()
    (row,) = Encoder(tokenizer, window=256, reasoning=reasoning).encode([talk])
    assert (row.tokens, row.status) == (None, "unreadable")
    assert "turn 2 has <think> outside a closed block" in row.detail
    made = Encoder(tokenizer, window=256)
    rows = made.encode([talk])
    assert responses(made, rows[0]) == [said]


WRITES_LISTS = "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"


@pytest.mark.parametrize("where", ["content", "reasoning_content"])
def test_an_answer_of_nothing_but_reasoning_is_empty_as_context(where):
    said = turn("assistant", "<think>he</think>" if where == "content" else "")
    if where == "reasoning_content":
        said["reasoning_content"] = "he"
    talk = Conversation([turn("user", "hi"), said])
    (row,) = Encoder(tiny.tokenizer(WRITES_LISTS), window=256, reasoning="context").encode([talk])
    assert (row.tokens, row.status) == (None, "empty_response")
    assert row.detail == "no assistant turn has any text beside its reasoning"


def test_a_list_of_parts_that_a_template_writes_as_it_is_gets_no_score():
    """It drops the answer in a text, but knows nothing of lists."""
    dropping = WRITES_LISTS.replace("m.content", "'' if 'hello' in m.content else m.content")
    talk = Conversation([turn("user", "hi"), turn("assistant", "hello")])
    (row,) = Encoder(tiny.tokenizer(dropping), window=256).encode([talk])
    assert (row.tokens, row.status) == (None, "unreadable")
    assert "turn 2 cannot be located" in row.detail
