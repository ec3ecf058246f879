from __future__ import annotations

import json

import pytest

from helpers import tiny_language_model as tiny
from lc_engine.language.rendering.chat_template import ChatTemplate
from lc_engine.language.rendering.responses import RenderingError, locate

# Splits reasoning off the content, and writes it in answers to the last question only.
REASONING = """\
{%- set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}\
{% set ns.last = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages %}{% set text = m.content %}{% set why = '' %}
{%- if m.role == 'assistant' %}{% if m.reasoning_content is defined and m.reasoning_content %}\
{% set why = m.reasoning_content %}{% elif '</think>' in text %}\
{% set why = text.split('</think>')[0].split('<think>')[-1].strip('\\n') %}\
{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}{% endif -%}
<|s|>{{ m.role }}
{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>
{{ why }}
</think>

{% endif %}{{ text }}<|e|>
{% endfor -%}
"""
TOOLS = """\
{%- if tools %}<|s|>system
Functions:{% for t in tools %} {{ t | tojson }}{% endfor %}<|e|>
{% endif -%}
{%- for m in messages %}<|s|>{{ m.role }}
{% if m.content %}{{ m.content }}{% endif %}{% for c in (m.tool_calls or []) %}\
[CALL {{ c.function.name }} {{ c.function.arguments if c.function.arguments is string else \
c.function.arguments | tojson }}]{% endfor %}<|e|>
{% endfor -%}
"""
WEATHER = {"type": "function", "function": {"name": "hours", "parameters": {"type": "object"}}}
WHY, ANSWER = "17 + 25 is 42.", "42"
BLOCK = f"<think>\n{WHY}\n</think>\n\n"


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **fields):
    return {"role": "assistant", "content": content, **fields}


def call(arguments, name="hours"):
    return [{"type": "function", "function": {"name": name, "arguments": arguments}}]


def located(template, messages, counted=None, tools=None, **options):
    made = ChatTemplate(tiny.tokenizer(template))
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    found = locate(made, messages, turns if counted is None else counted, tools=tools, **options)
    # The text is the one that transformers writes of what the template was given.
    rendered = made._tokenizer.apply_chat_template(found.messages, tools=tools, tokenize=False)
    assert found.text == rendered
    return found


def answers(*arguments, **options):
    found = located(*arguments, **options)
    return [found.text[a:b] for a, b in found.spans]


QUESTION = user("17 + 25?")
TWO_ROUNDS = [
    QUESTION,
    assistant(BLOCK + ANSWER),
    user("Twice that?"),
    assistant("<think>\n2 x 42 is 84.\n</think>\n\n84"),
]


def test_reasoning_counts_where_the_template_writes_it():
    assert answers(REASONING, [QUESTION, assistant(ANSWER)]) == [ANSWER]
    in_content = answers(REASONING, [QUESTION, assistant(BLOCK + ANSWER)])
    in_a_field = answers(REASONING, [QUESTION, assistant(ANSWER, reasoning_content=WHY)])
    assert in_content == in_a_field == [BLOCK + ANSWER]
    found = located(REASONING, TWO_ROUNDS)
    assert [found.text[a:b] for a, b in found.spans] == [ANSWER, TWO_ROUNDS[3]["content"]]
    assert found.notes == ["the template does not write the reasoning of turn 2"]
    short = [*TWO_ROUNDS[:3], assistant("84")]
    assert answers(REASONING, short) == [ANSWER, "84"]


@pytest.mark.parametrize(
    "content", ["<think>17 + 25 is 42.</think>42", "17 + 25 is 42.\n</think>\n\n42", BLOCK + ANSWER]
)
def test_reasoning_counts_alike_however_the_row_sets_it_off(content):
    assert answers(REASONING, [QUESTION, assistant(content)]) == [BLOCK + ANSWER]


def test_a_template_that_writes_contents_as_they_are_writes_reasoning_too():
    assert answers(tiny.TEMPLATE, TWO_ROUNDS) == [
        TWO_ROUNDS[1]["content"],
        TWO_ROUNDS[3]["content"],
    ]
    found = located(tiny.TEMPLATE, [QUESTION, assistant(ANSWER, reasoning_content=WHY)])
    assert found.notes == ["the template does not write the reasoning of turn 2"]


@pytest.mark.parametrize("template", [REASONING, tiny.TEMPLATE])
def test_reasoning_may_be_context(template):
    talk = [QUESTION, assistant(BLOCK + ANSWER)]
    assert answers(template, talk, reasoning=False) == [ANSWER]
    field = [QUESTION, assistant(ANSWER, reasoning_content=WHY)]
    assert answers(REASONING, field, reasoning=False) == [ANSWER]
    called = [QUESTION, assistant("", reasoning_content=WHY, tool_calls=call({"shop": 7}))]
    both = REASONING.replace(
        "{{ text }}",
        "{{ text }}{% for c in m.tool_calls or [] %}<tool_call>"
        "{{ c.function | tojson }}</tool_call>{% endfor %}",
    )
    written = '<tool_call>{"name": "hours", "arguments": {"shop": 7}}</tool_call>'
    assert answers(both, called, reasoning=False) == [written]
    assert answers(both, called) == [BLOCK + written]


def test_a_call_is_part_of_the_answer_and_its_result_is_not():
    ask = user("Is shop 7 open on Sunday?")
    arguments = {"shop": 7, "day": "Sunday"}
    written = '[CALL hours {"shop": 7, "day": "Sunday"}]'
    first = assistant("Let me look.", tool_calls=call(arguments))
    assert answers(TOOLS, [ask, first], tools=[WEATHER]) == [f"Let me look.{written}"]
    result = {"role": "tool", "content": '{"open": "no"}'}
    alone = assistant("", tool_calls=call(json.dumps(arguments)))
    rest = [result, assistant("No, it is closed.")]
    for given in (alone, {**alone, "content": None}):
        found = answers(TOOLS, [ask, given, *rest], tools=[WEATHER])
        assert found == [written, "No, it is closed."]
    assert answers(TOOLS, [ask, assistant("", tool_calls=call({"shop": 7}))]) == [
        '[CALL hours {"shop": 7}]'
    ]


TO_JSON = (
    "{% for m in messages %}<s>{{ m.role }} {% if m.tool_calls %}{% for c in m.tool_calls %}"
    "<call>{{ c.function | tojson }}</call>{% endfor %}{% else %}{{ m.content | tojson }}"
    "{% endif %}</s>{% endfor %}"
)
AS_TEXT = TO_JSON.replace("c.function | tojson", "c.function.name + ' ' + c.function.arguments")
ITEMS = TO_JSON.replace(
    "{{ c.function | tojson }}",
    "{{ c.function.name }}{% for k, v in c.function.arguments | items %} {{ k }}={{ v }}"
    "{% endfor %}",
)


@pytest.mark.parametrize(
    ("template", "given", "written", "form"),
    [
        (
            TO_JSON,
            {"day": 'a "b"'},
            '<call>{"name": "hours", "arguments": {"day": "a \\"b\\""}}</call>',
            "",
        ),
        (
            TO_JSON,
            '{"day": "b"}',
            '<call>{"name": "hours", "arguments": {"day": "b"}}</call>',
            "objects",
        ),
        (
            TO_JSON.replace("c.function | tojson", "c.function | tojson(ensure_ascii=True)"),
            {"day": "É"},
            '<call>{"name": "hours", "arguments": {"day": "\\u00c9"}}</call>',
            "",
        ),
        (AS_TEXT, '{"day":  "b"}', '<call>hours {"day":  "b"}</call>', ""),
        (AS_TEXT, {"day": "b"}, '<call>hours {"day": "b"}</call>', "JSON text"),
        (ITEMS, '{"day": "b", "n": 3}', "<call>hours day=b n=3</call>", "objects"),
    ],
)
def test_arguments_are_given_in_the_form_that_the_template_writes(template, given, written, form):
    found = located(template, [user("?"), assistant("", tool_calls=call(given))])
    assert [found.text[a:b] for a, b in found.spans] == [written]
    assert [("as " + form in note) for note in found.notes] == ([True] if form else [])


def test_texts_that_are_escaped_are_located():
    talk = [user("<b>"), assistant('a "quote"\n\\ and <i>'), user("&"), assistant('"')]
    template = "{% for m in messages %}<s>{{ m.role }} {{ m.content | tojson }}</s>{% endfor %}"
    found = answers(template, talk)
    assert found == ['a \\"quote\\"\\n\\\\ and <i>', '\\"']


BLANKS = [user(" hi "), assistant(" 4 \n"), user("\n"), assistant("\n\n5")]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("m.content", [" 4 \n", "\n\n5"]),
        ("m.content | trim", ["4", "5"]),
        ("(m.content | trim) if loop.last else m.content", [" 4 \n", "5"]),
        ("m.content.strip('\\n')", [" 4 ", "5"]),
        ("m.content.lstrip()", ["4 \n", "5"]),
        ("' ' + m.content.strip() + ' \\n'", ["4", "5"]),
        ("' ' + m.content + '\\n'", [" 4 \n", "\n\n5"]),
    ],
)
def test_white_space_counts_where_it_is_the_texts(change, found):
    template = "{% for m in messages %}<s>{{ m.role }}\n{{ " + change + " }}\n</s>{% endfor %}"
    assert answers(template, BLANKS) == found


def test_an_empty_system_text_or_one_that_is_moved_is_no_obstacle():
    moving = (
        "{% if messages[0].role == 'system' %}{% set first = messages[0].content %}"
        "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}[{{ m.role }}]"
        "{% if loop.last and first %}{{ first }} {% endif %}{{ m.content }}{% endfor %}"
    )
    for system in ("", "4", " be kind "):
        talk = [{"role": "system", "content": system}, user("2 + 2?"), assistant("4")]
        found = located(moving, talk)
        assert [found.text[a:b] for a, b in found.spans] == ["4"]
        assert found.spans[0][1] == len(found.text)


def test_an_answer_that_is_written_apart_counts_where_it_stands():
    """As in templates that go on with the answer after the result of its call."""
    template = (
        "{% for m in messages if m.role != 'tool' %}<s>{{ m.role }} "
        "{% for c in m.tool_calls or [] %}"
        "<call>{{ c.function | tojson }}</call>{% for n in messages if n.role == 'tool' %}"
        "{{ n.content }}|{% endfor %}{% endfor %}"
        "{{ m.content }}</s>{% endfor %}"
    )
    talk = [
        user("?"),
        assistant("Done", tool_calls=call({"n": 1})),
        {"role": "tool", "content": "ok"},
    ]
    assert answers(template, talk) == [
        '<call>{"name": "hours", "arguments": {"n": 1}}</call>',
        "Done",
    ]


def test_contents_in_parts_for_a_template_that_asks_for_them():
    template = (
        "{% for m in messages %}<s>{{ m.role }}:{% for part in m.content %}{{ part['text'] }}"
        "{% endfor %}</s>{% endfor %}"
    )
    found = located(template, [user("a"), assistant("b")])
    assert [found.text[a:b] for a, b in found.spans] == ["b"]
    assert "lists of parts" in found.notes[0]


@pytest.mark.parametrize("counted", [[3], [1, 3]])
def test_contents_are_no_parts_only_because_a_template_writes_no_calls(counted):
    talk = [
        user("?"),
        assistant("", tool_calls=[call({"shop": 7})]),
        {"role": "tool", "content": "closed"},
        assistant("hours: closed"),
    ]
    for template in (tiny.TEMPLATE, "{% for m in messages %}{{ m.content | trim }}{% endfor %}"):
        found = located(template, talk, counted)
        assert [found.text[a:b] for a, b in found.spans] == ["hours: closed"]
        assert "type" not in found.text


def test_a_text_with_the_characters_that_stand_in_is_located():
    odd = "\U000f0000 a \U000f0001\U0010fffd\ue000"
    assert answers(tiny.TEMPLATE, [user(odd), assistant(odd)]) == [odd]
    assert answers(tiny.TEMPLATE, [user(odd), assistant("\n\U000f0001")]) == ["\n\U000f0001"]


def test_words_that_the_template_replaces_at_the_ends_of_a_text_count():
    template = (
        "{% for m in messages %}<s>{{ m.role }} {{ m.content | replace('<', '&lt;') | "
        "replace('im', 'IM') }}</s>{% endfor %}"
    )
    talk = [user("?"), assistant("im a <"), user("<"), assistant("<b> is bold\n")]
    assert answers(template, talk) == ["IM a &lt;", "&lt;b> is bold\n"]


def test_a_text_of_which_nothing_can_be_replaced_is_located():
    for said in ('"', "<>&", "👍", "assistant", "</s>"):
        assert answers(tiny.TEMPLATE, [user("?"), assistant(said)]) == [said]


def test_a_text_longer_than_the_characters_that_stand_in(monkeypatch):
    said = " ".join(str(n) for n in range(40_000))
    assert answers(tiny.TEMPLATE, [user(said), assistant(said), user("?"), assistant("b")]) == [
        said,
        "b",
    ]


def test_a_template_that_changes_texts_is_read_by_its_beginnings():
    upper = "{% for m in messages %}<s>{{ m.role }}:{{ m.content | upper }}</s>{% endfor %}"
    talk = [user("hi"), assistant("one"), user("two"), assistant("three")]
    assert answers(upper, talk) == ["ONE", "THREE"]
    backwards = upper.replace("in messages", "in messages[::-1]")
    found = located(backwards, talk)
    assert [found.text[a:b] for a, b in found.spans] == ["THREE"]
    assert found.notes == ["the template changes the texts, so turn 2 cannot be located"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('users first') }}", "the chat template rejects the row: users first"),
        ("{{ messages[0].content }}", "the template does not write the text of turn 2"),
    ],
)
def test_a_row_without_an_answer_in_its_text_says_so(template, reason):
    with pytest.raises(RenderingError, match=reason):
        located(template, [user("hi"), assistant("a")])
