"""Functions that a row offers, and calls of them, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats.fields import BAD_FIELD, from_json, shown


def row_tools(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the schemas of a row's `tools` (or `functions`, the older form), None for none.

    A list, or JSON text of one; a function that stands alone is put into {"type": "function"}.

    Raises:
        RowError: "bad_field", something else.
    """
    for name in ("tools", "functions"):
        value = from_json(row.get(name))
        if value is None or (isinstance(value, (str, list, tuple)) and not value):
            continue
        if isinstance(value, str) and not value.strip():
            continue
        if not isinstance(value, (list, tuple)):
            raise RowError(
                BAD_FIELD, f"{name} must be a list of functions or JSON of one, got {shown(value)}"
            )
        return [_tool(from_json(one), f"{name}[{i}]") for i, one in enumerate(value)]
    return None


def _tool(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        return dict(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return {
            "type": "function",
            "function": {key: part for key, part in value.items() if key != "type"},
        }
    raise RowError(BAD_FIELD, f"{where} must describe a function, got {shown(value)}")


def tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Return calls as OpenAI writes them, the arguments as given: an object, or JSON text.

    Args:
        value: a call or a list of calls, each with `function` or as its name and arguments alone;
            or JSON text of that.
        where: of the value, for errors.

    Raises:
        RowError: "bad_field", something else.
    """
    found = from_json(value)
    calls = list(found) if isinstance(found, (list, tuple)) else [found]
    return [_call(from_json(call), where) for call in calls]


def called(text: Any, where: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the text before the calls of a turn `function_call`, and the calls.

    Such a turn holds JSON, which reasoning within <think> and </think> may precede.

    Raises:
        RowError: "bad_field", no JSON of calls.
    """
    if not isinstance(text, str):
        return "", tool_calls(text, where)
    before, ends, rest = text.rpartition("</think>")
    return before + ends, tool_calls(rest.strip(), where)


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        raise RowError(
            BAD_FIELD,
            f"{where} must hold calls with a name and arguments, got {shown(call)}",
        )
    arguments = function.get("arguments", function.get("parameters"))
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, (str, Mapping)):
        raise RowError(
            BAD_FIELD, f"the arguments of {where} must be an object, got {shown(arguments)}"
        )
    made: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if function is not call and call.get("id") is not None:
        made["id"] = call["id"]
    return made
