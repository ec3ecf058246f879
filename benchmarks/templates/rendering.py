"""Rendering of conversations by a chat template, in the forms that a trainer would try."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from transformers.utils.chat_template_utils import render_jinja_template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Message = dict[str, Any]
    Form = Callable[[Message], Message]

_MARKS: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")


class RejectedError(Exception):
    """The template raises an error for the row."""


class Renderer:
    """Renders conversations by one template.

    Args:
        template: Jinja text.
        special_tokens: of the tokenizer, by name, which templates write.
        form: what every message is turned into before the template sees it.
    """

    def __init__(
        self, template: str, special_tokens: Mapping[str, Any], form: Form | None = None
    ) -> None:
        self.template = template
        self.special_tokens = special_tokens
        self.form = form
        self.has_marks = _MARKS.search(template) is not None

    def in_form(self, form: Form) -> Renderer:
        """Return the same renderer for another form of messages."""
        return Renderer(self.template, self.special_tokens, form)

    def text(self, messages: list[Message], tools: Any = None, *, prompt: bool = False) -> str:
        """Return the rendering, with the header of an answer at its end if `prompt`.

        Raises:
            RejectedError: the template does not take the messages.
        """
        return self.marked(messages, tools, prompt=prompt)[0]

    def marked(
        self, messages: list[Message], tools: Any = None, *, prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the rendering and the spans [start, stop) that the template marks as generated.

        Raises:
            RejectedError: the template does not take the messages.
        """
        given = messages if self.form is None else [self.form(message) for message in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[given],
                tools=tools,
                chat_template=self.template,
                return_assistant_tokens_mask=self.has_marks,
                add_generation_prompt=prompt,
                **self.special_tokens,
            )
        except Exception as error:  # a template is a program, and may raise anything
            raise RejectedError(" ".join(str(error).split())) from error
        return texts[0], spans[0] if self.has_marks else []


def contents_as_parts(message: Message) -> Message:
    """Return a message whose content is a list of one part, which vision models' templates want."""
    return message | {"content": [{"type": "text", "text": message["content"]}]}


def arguments_as_text(message: Message) -> Message:
    """Return a message whose calls have their arguments as JSON text."""

    def change(given: Any) -> str:
        return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)

    return _with_arguments(message, change)


def arguments_as_objects(message: Message) -> Message:
    """Return a message whose calls have their arguments as objects."""

    def change(given: Any) -> Any:
        return json.loads(given) if isinstance(given, str) else given

    return _with_arguments(message, change)


def _with_arguments(message: Message, change: Callable[[Any], Any]) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": change(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}
