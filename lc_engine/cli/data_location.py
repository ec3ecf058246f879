"""Where the data of a command are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def locate(data: Sequence[str]) -> Any:
    """Return a path, or a data set that the Hub gave; of several sources a mapping of names to it.

    Args:
        data: what --data names, once or several times.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: two sources have the same name.
    """
    from lc_engine.data.locations import named_locations

    found = named_locations(data)
    if isinstance(found, str):
        return _locate(found)
    return {name: _locate(one) for name, one in found.items()}


def _locate(data: str) -> Any:
    from lc_engine.data.locations import to_path
    from lc_engine.data.readers.hub import is_hub_name, load_hub

    if is_hub_name(data):
        return load_hub(data)
    where = to_path(data)
    if not where.exists():
        raise FileNotFoundError(f"--data {data} does not exist")
    return where
