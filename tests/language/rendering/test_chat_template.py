from __future__ import annotations

from datetime import datetime

import pytest

from helpers import tiny_language_model as tiny
from lc_engine.language.rendering import clock
from lc_engine.language.rendering.chat_template import ChatTemplate

HI = [{"role": "user", "content": "hi"}]
DATED = "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}"
TIMED = "{{ strftime_now('%H:%M') }}: {{ messages[0].content }}"
EITHER = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%Y-%m-%d') %}{% endif %}{% endif %}"
    "{{ date_string }}{{ messages[0].content }}"
)


@pytest.fixture
def today(monkeypatch):
    """Sets the date and time that are now."""

    def at(*moment):
        class Fixed(datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(*moment)

        monkeypatch.setattr(clock, "datetime", Fixed)

    return at


def template(text, **options):
    return ChatTemplate(tiny.tokenizer(text), **options)


def test_time_stands_still(today):
    today(2026, 7, 26, 23, 59)
    made = template(DATED)
    today(2026, 7, 27)
    assert made.render(HI) == "26 Jul 2026: hi"
    assert made.describe()["template_time"] == "2026-07-26"
    assert template(DATED).render(HI) == "27 Jul 2026: hi"
    # The templates of others in the process are as they were.
    there = made._tokenizer.apply_chat_template(HI, tokenize=False)
    assert there == f"{datetime.now():%d %b %Y}: hi"


def test_the_description_has_the_time_that_is_asked_for(today):
    today(2026, 7, 26, 9, 30)
    first = [template(text).describe() for text in (tiny.TEMPLATE, DATED, TIMED, EITHER)]
    today(2026, 7, 26, 9, 31)
    later = [template(text).describe() for text in (tiny.TEMPLATE, DATED, TIMED, EITHER)]
    assert [a == b for a, b in zip(first, later, strict=True)] == [True, True, False, True]
    today(2026, 7, 27, 9, 30)
    next_day = [template(text).describe() for text in (tiny.TEMPLATE, DATED, TIMED, EITHER)]
    assert [a == b for a, b in zip(first, next_day, strict=True)] == [True, False, False, False]


def test_a_time_may_be_given():
    assert template(DATED, at="2024-07-26").render(HI) == "26 Jul 2024: hi"
    assert template(TIMED, at="2024-07-26T08:05:00").render(HI) == "08:05: hi"
    with pytest.raises(ValueError, match=r"template_time must be a date or a time .* got 'now'"):
        template(DATED, at="now")


def test_a_date_that_is_given_as_a_variable_is_no_date_of_the_run(today):
    made = template(EITHER, variables={"date_string": "today"})
    assert made.render(HI) == "todayhi"
    assert "template_time" not in made.describe()
    with pytest.raises(ValueError, match=r"asks for the time .* although date_string is given"):
        template(DATED, variables={"date_string": "today"}).render(HI)


def test_variables_reach_the_template_and_a_rows_own_come_first():
    made = template("{{ mode }}{{ depth }}", variables={"mode": "a", "depth": 1})
    assert made.render(HI) == "a1"
    assert made.render(HI, variables={"mode": "b"}) == "b1"
    assert made.describe()["template_kwargs"] == {"mode": "a", "depth": 1}


@pytest.mark.parametrize("name", ["tokenize", "add_generation_prompt", "tools", "padding"])
def test_an_argument_of_the_rendering_is_no_variable(name):
    with pytest.raises(ValueError, match=f"template_kwargs: {name} cannot be given"):
        template(tiny.TEMPLATE, variables={name: True})
    with pytest.raises(ValueError, match=f"template_kwargs: {name} cannot be given"):
        template(tiny.TEMPLATE).render(HI, variables={name: True})


def test_a_row_with_tools_takes_the_template_for_tools():
    made = template({"default": "plain", "tool_use": "{{ tools | length }}", "rag": "r"})
    assert made.render(HI) == "plain"
    assert made.render(HI, tools=[{"type": "function"}]) == "1"
    with pytest.raises(ValueError, match="chat templates rag and none is the default"):
        template({"rag": "r"})


def test_a_text_that_is_no_template_is_refused():
    with pytest.raises(ValueError, match="chat_template is no template of Jinja: line 1"):
        template("{{ 'a")


def test_what_a_template_looks_for_is_known():
    made = template(
        "user's {# '</no>' #}{% if '</think>' in messages[0].content %}{{ 'word' }}{% endif %}"
    )
    assert made.strings == {"</think>", "word"}
    assert made.tags == {"</think>"}
