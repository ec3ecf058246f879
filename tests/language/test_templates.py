"""Templates in the manners of real families × every kind of row, against the account of benchmarks.

`python -m benchmarks.templates_table` does the same with every template that packages carry.
"""

from __future__ import annotations

import pytest

from benchmarks.templates.account import account
from benchmarks.templates.judge import judge
from benchmarks.templates.rendering import Renderer
from benchmarks.templates.rows import KINDS
from helpers import tiny_language_model as tiny
from lc_engine.language.encoder import Encoder

CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
)
TURN = "{{ '<|im_start|>' + m.role + '\n' }}"
TEMPLATES = {
    "ChatML": (
        "{% for m in messages %}"
        + TURN
        + "{{ m.content }}"
        + CALLS
        + "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "trims all": (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}" + CALLS + "<end>{% endfor %}"
    ),
    "trims only users": (
        "{% for m in messages %}[{{ m.role }}]"
        "{{ m.content | trim if m.role == 'user' else m.content }}" + CALLS + "<end>{% endfor %}"
    ),
    "no empty system": (
        "{% for m in messages %}{% if m.role != 'system' or m.content %}"
        + TURN
        + "{{ m.content }}"
        + CALLS
        + "<|im_end|>{% endif %}{% endfor %}"
    ),
    "INST": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}"
        + CALLS
        + "{{ eos_token }}{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
    "reasoning in the last answer": (
        "{% for m in messages %}" + TURN + "{% set text = m.content %}"
        "{% set thought = m.reasoning_content or '' %}"
        "{% if m.role == 'assistant' and '</think>' in text %}"
        "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip() %}"
        "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{% if m.role == 'assistant' and loop.last %}"
        "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
        "{{ text }}" + CALLS + "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "reasoning everywhere": (
        "{% for m in messages %}"
        + TURN
        + "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
        "</think>{% endif %}{{ m.content }}" + CALLS + "<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "generation marks": (
        "{% for m in messages %}" + TURN + "{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}" + CALLS + "{{ '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    ),
    "dated": (
        "Today is {{ strftime_now('%d %B %Y') }}.\n{% for m in messages %}"
        + TURN
        + "{{ m.content }}"
        + CALLS
        + "<|im_end|>{% endfor %}"
    ),
    "channels": (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}"
        "{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant"
        "{% endif %}{% if m.tool_calls %}{% for c in m.tool_calls %}"
        " to=functions.{{ c.function.name }}<|channel|>commentary<|message|>"
        "{% set given = c.function.arguments %}"
        "{{ given if given is string else given | tojson }}"
        "<|call|>{% endfor %}{% else %}<|channel|>final<|message|>{{ m.content }}<|return|>"
        "{% endif %}"
        "{% else %}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    "contents as parts": (
        "{% for m in messages %}{{ m.role | upper }}: {% for part in m.content %}{{ part.text }}"
        "{% endfor %}\n{% endfor %}"
    ),
    "no calls": "{% for m in messages %}"
    + TURN
    + "{{ m.content }}{{ '<|im_end|>\n' }}{% endfor %}",
}
# No template that writes no call has a call to score.
UNWRITTEN = {("no calls", "call alone"), ("contents as parts", "call alone")}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokens_scored_are_those_of_an_independent_account(name):
    tokenizer = tiny.tokenizer(TEMPLATES[name])
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", "<think>", "</think>"], special_tokens=True)
    render = Renderer(TEMPLATES[name], tokenizer.special_tokens_map)
    encoder = Encoder(tokenizer, window=1 << 20)
    for kind, row in KINDS.items():
        verdict = judge(encoder, render, row)
        expected = "unwritten" if (name, kind) in UNWRITTEN else "right"
        assert verdict.outcome == expected, (kind, verdict)


def test_the_account_finds_what_is_written_of_an_answer():
    """The account itself, where the right characters can be told by hand."""
    render = Renderer(TEMPLATES["trims all"], {})
    found = account(render, KINDS["white space"])
    spans = "".join(c if is_response else "|" for c, is_response in zip(*found[:2], strict=True))
    assert [one for one in spans.split("|") if one] == ["Blue, mostly.", "Blue  too."]
    kept = account(Renderer(TEMPLATES["ChatML"], {}), KINDS["white space"])
    spans = "".join(c if is_response else "|" for c, is_response in zip(*kept[:2], strict=True))
    assert [one for one in spans.split("|") if one] == [" Blue, mostly. \n", "\n\nBlue  too.\n"]
    call = account(Renderer(TEMPLATES["channels"], {}), KINDS["tool call"])
    written = "".join(c for c, is_response in zip(*call[:2], strict=True) if is_response)
    assert written == 'get_weathercity": "Lyon", "days": 3' + "No, the sky will be clear."


def test_the_judge_sees_a_token_too_many_and_one_too_few():
    """A faulty encoder is told from a right one."""

    class Shifted(Encoder):
        shift = 0

        def encode(self, conversations):
            made = super().encode(conversations)
            for one in made:
                response = one.tokens.response
                first = int(response.argmax())
                response[first - 1 if self.shift < 0 else first] = self.shift < 0
            return made

    tokenizer = tiny.tokenizer(TEMPLATES["ChatML"])
    render = Renderer(TEMPLATES["ChatML"], tokenizer.special_tokens_map)
    for shift, fault in ((-1, "counted"), (1, "left out")):
        encoder = Shifted(tokenizer, window=1000)
        encoder.shift = shift
        verdict = judge(encoder, render, KINDS["plain"])
        assert verdict.outcome == "wrong"
        assert fault in verdict.detail
