"""Where the data of a command are."""

from __future__ import annotations

from typing import Any


def locate(data: str) -> Any:
    """Return a path, or a data set that the Hub gave.

    Raises:
        FileNotFoundError: there is nothing of that name.
    """
    from lc_engine.data.locations import to_path
    from lc_engine.data.readers.hub import is_hub_name, load_hub

    if is_hub_name(data):
        return load_hub(data)
    where = to_path(data)
    if not where.exists():
        raise FileNotFoundError(f"--data {data} does not exist")
    return where
