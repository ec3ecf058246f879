"""Fields of a row or a turn: which one is there, and values that are written as JSON text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.readers.records import RowError

if TYPE_CHECKING:
    from collections.abc import Collection

MISSING_FIELD: Final = "missing_field"
BAD_FIELD: Final = "bad_field"

# The speaker of a turn and what is said, by the names that data sets have for them.
SPEAKER: Final = ("role", "from")
TEXT: Final = ("content", "value")

_SHOWN = 40


def present(row: Mapping[str, Any], names: Collection[str], where: str = "the row") -> str:
    """Return the first of these names that the row has a value for.

    Raises:
        RowError: "missing_field", there is none.
    """
    for name in names:
        if row.get(name) is not None:
            return name
    raise RowError(
        MISSING_FIELD,
        f"{where} lacks {' or '.join(names)}; it has {', '.join(map(str, row)) or 'no fields'}",
    )


def shown(value: Any) -> str:
    """Return what a value is, and how it begins, for an error message."""
    begins = f" that begins {value[:_SHOWN]!r}" if isinstance(value, str) else ""
    if isinstance(value, Mapping):
        begins = f" with {', '.join(map(str, value)) or 'no fields'}"
    return f"a {type(value).__name__}{begins}"


# Lists that pandas writes into CSV.
_PYTHON_TURNS: Final = re.compile(r"\s*\[\s*\{\s*'(role|content|from|value)'\s*:")


def from_json(value: Any) -> Any:
    """Return the list or object that a text is the JSON of, and any other value as it is.

    Raises:
        RowError: "bad_field", turns in Python's notation, which would pass for a text.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            if _PYTHON_TURNS.match(value):
                raise RowError(
                    BAD_FIELD,
                    f"the row has turns in Python's notation ({value[:_SHOWN]}…), not in JSON: "
                    "write them by json.dumps, or the rows as JSON lines or Parquet",
                ) from None
    return value


def turn_list(value: Any, field: str) -> list[Any]:
    """Return the turns of a field: a list, JSON text of one, or a struct of equally long lists.

    Raises:
        RowError: "missing_field", something else; the text says what was found.
    """
    found = from_json(value)
    if isinstance(found, Mapping):
        found = transposed(found)
    if not isinstance(found, (list, tuple)):
        raise RowError(MISSING_FIELD, f"{field} must be a list of turns, got {shown(value)}")
    if not found:
        raise RowError(MISSING_FIELD, f"{field} has no turns")
    return list(found)


def holds_turns(value: Any) -> bool:
    """Return whether a value is a list of turns, also as JSON text or as a struct of lists."""
    found = from_json(value)
    if isinstance(found, Mapping):
        found = transposed(found)
    if not isinstance(found, (list, tuple)) or not found:
        return False
    first = found[0]
    return isinstance(first, Mapping) and any(name in first for name in SPEAKER)


def transposed(columns: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of a struct of lists, which `datasets` made of lists of structs."""
    lists = [values for values in columns.values() if values is not None]
    if not lists or not all(isinstance(values, (list, tuple)) for values in lists):
        return None
    if len({len(values) for values in lists}) != 1:
        return None
    return [
        {name: values[i] for name, values in columns.items() if values is not None}
        for i in range(len(lists[0]))
    ]
