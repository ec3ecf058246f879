"""A chat template, rendered by `transformers` at a moment that stands still."""

from __future__ import annotations

import ast
import inspect
import json
from typing import TYPE_CHECKING, Any, Final

from lc_engine._util.digests import config_digest
from lc_engine._util.extras import require
from lc_engine.language.rendering.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# For tokenizers without a chat template: the headings of Alpaca's prompt, for any number of turns.
PLAIN_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)

# The template that `transformers` takes for a row with tools, where a tokenizer has several.
_FOR_TOOLS: Final = "tool_use"
_TIME: Final = "strftime_now"
# A text that templates take as the date in place of today's.
_GIVEN_DATE: Final = "date_string"


class ChatTemplate:
    """What turns messages into the text that a model was trained on.

    Args:
        tokenizer: of `transformers`; its special tokens are variables of the template.
        text: Jinja text in place of the tokenizer's own; without either, the headings of Alpaca's
            prompt precede the turns.
        variables: further variables of the template; a row's own come before them.
        at: the moment that the template takes for now; see `Clock`.

    Raises:
        ValueError: not a template of Jinja; the tokenizer has several and none is the default; a
            variable that is no JSON value or is an argument of `apply_chat_template`; not a moment.
    """

    def __init__(
        self,
        tokenizer: Any,
        text: str | None = None,
        variables: Mapping[str, Any] | None = None,
        at: str | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.variables = dict(variables or {})
        self.is_asked_for = text is not None
        self.texts = _texts(getattr(tokenizer, "chat_template", None) if text is None else text)
        self.is_plain = self.texts == {"default": PLAIN_TEMPLATE}
        parameters = inspect.signature(tokenizer.apply_chat_template).parameters
        self._reserved = frozenset(parameters) - {"documents", "kwargs"}
        self._check(self.variables)
        try:
            json.dumps(self.variables)
        except (TypeError, ValueError) as error:
            raise ValueError(f"template_kwargs must be JSON values: {error}") from None
        tokens = [token for source in self.texts.values() for token in _tokens(source)]
        self.has_marks = ("name", "generation") in tokens
        # What the template may look for in a text, and of it what is no plain word.
        texts = {_unquoted(value) for kind, value in tokens if kind == "string"}
        self.strings = frozenset(text for text in texts if text.strip())
        self.tags = frozenset(text for text in self.strings if not text.isalnum())
        formats = _asked_times(tokens)
        self.is_dated = formats != [] and _GIVEN_DATE not in self.variables
        self.clock = Clock(at, formats)
        # A key of its own in the cache of compiled templates: what is compiled from it, with a
        # clock that stands still, is nobody else's. The line break after a comment is not written.
        tag = f"{{# lc_engine {self.clock.at if self.is_dated else ''} #}}\n"
        self._sources = {
            name: tag + text if _TIME in text else text for name, text in self.texts.items()
        }

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of messages, exactly as `apply_chat_template` writes it.

        Raises:
            Exception: a template is a program, and may raise anything.
        """
        text = self._applied(messages, tools, variables, tokenize=False)
        assert isinstance(text, str)
        return text

    def marked(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return, for each token, 1 where the template's generation marks hold it, else 0."""
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        masks: list[int] = self._applied(messages, tools, variables, **options)["assistant_masks"]
        return masks

    def describe(self) -> dict[str, Any]:
        """Return what the texts depend on besides the rows, as JSON."""
        only = self.texts.get("default") if len(self.texts) == 1 else self.texts
        return {
            "template_digest": config_digest({"template": only}),
            "template": "plain" if self.is_plain else "chat",
            "template_kwargs": self.variables,
            **({"template_time": self.clock.at} if self.is_dated else {}),
        }

    def _applied(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any] | None,
        **options: Any,
    ) -> Any:
        if variables:
            self._check(variables)
        name = _FOR_TOOLS if tools is not None and _FOR_TOOLS in self._sources else "default"
        source = self._sources[name]
        if source is not self.texts[name]:
            self._stop_clock(source)
        return self._tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=source,
            **options,
            **self.variables | dict(variables or {}),
        )

    def _check(self, variables: Mapping[str, Any]) -> None:
        taken = sorted(self._reserved & variables.keys())
        if taken:
            raise ValueError(
                f"template_kwargs: {', '.join(taken)} cannot be given: it is an argument of "
                "apply_chat_template and no variable of the template"
            )

    def _stop_clock(self, source: str) -> None:
        """Give the compiled template, which `transformers` keeps, the clock that stands still."""
        rendering = require("transformers.utils.chat_template_utils", "language")
        # The function that a template calls is a global of its environment; one passed as a
        # variable would be replaced by a text. No other way leads to the environment.
        environment = rendering._compile_jinja_template(source).environment
        environment.globals["strftime_now"] = self.clock.strftime if self.is_dated else _no_time


def _no_time(form: str) -> str:
    raise ValueError(
        f"it asks for the time ({form}) although {_GIVEN_DATE} is given: leave {_GIVEN_DATE} out"
    )


def _texts(given: str | dict[str, str] | None) -> dict[str, str]:
    """Return the templates by name; "default" is among them."""
    if not given:
        return {"default": PLAIN_TEMPLATE}
    if isinstance(given, str):
        return {"default": given}
    if "default" not in given:
        raise ValueError(
            f"the tokenizer has the chat templates {', '.join(sorted(given))} and none is the "
            "default: pass the text of one as chat_template"
        )
    return {name: given[name] for name in ("default", _FOR_TOOLS) if name in given}


def _tokens(text: str) -> list[tuple[str, str]]:
    """Return the tokens of a template's statements and expressions: kind and value.

    Raises:
        ValueError: no template of Jinja.
    """
    jinja2 = require("jinja2", "language")
    try:
        tokens = list(jinja2.Environment().lex(text))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(
            f"chat_template is no template of Jinja: line {error.lineno}: {error.message}"
        ) from None
    return [(kind, value) for _, kind, value in tokens if kind in ("name", "operator", "string")]


def _asked_times(tokens: Sequence[tuple[str, str]]) -> list[str] | None:
    """Return the formats of the dates that a template asks for; None if one is computed."""
    formats = []
    for number, token in enumerate(tokens):
        if token != ("name", _TIME):
            continue
        after = tokens[number + 1 : number + 4]
        if after[:1] == [("name", "is")]:  # a test such as "strftime_now is defined"
            continue
        kinds = [kind if kind == "string" else value for kind, value in after]
        if kinds != ["(", "string", ")"]:
            return None
        formats.append(_unquoted(after[1][1]))
    return formats


def _unquoted(text: str) -> str:
    """Return the value of a string literal of Jinja, whose escapes are Python's."""
    try:
        value = ast.literal_eval(text.replace("\n", "\\n"))
    except (SyntaxError, ValueError):
        return text[1:-1]
    return value if isinstance(value, str) else text[1:-1]
