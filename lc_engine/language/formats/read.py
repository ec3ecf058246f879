"""From a row to its conversations, by its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lc_engine.data.readers.records import RowError
from lc_engine.language.formats import alpaca, listed, preference, prompt_completion
from lc_engine.language.formats.fields import BAD_FIELD, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.language.conversation import Conversation
    from lc_engine.language.formats.detect import Format

_READERS: Final[dict[str, Callable[[Mapping[str, Any]], Conversation]]] = {
    "alpaca": alpaca.read,
    "sharegpt": listed.read,
    "messages": listed.read,
    "prompt_completion": prompt_completion.read,
}


def conversations(row: Any, form: Format) -> tuple[Conversation, ...]:
    """Return what one row says: a conversation, or for "preference" (chosen, rejected).

    Args:
        row: the fields by name.
        form: the row's format.

    Raises:
        RowError: "missing_field", "bad_field", "unknown_role" or "not_text", with the field.
    """
    if not isinstance(row, Mapping):
        raise RowError(BAD_FIELD, f"a row must be an object with named fields, got {shown(row)}")
    if form == "preference":
        return preference.read(row)
    return (_READERS[form](row),)
