"""Describe the differences of two descriptions of runs, for error messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ABSENT = "(absent)"
_SHOWN = 5
# Another NumPy computes the weights of Gauss nodes with other last bits.
_ROUNDING = 1e-13


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the fields that differ: "masking.scope: 'global' -> 'layer'" (old -> new), "" if none.

    Args:
        old: JSON-like fields: mappings, lists and scalars.
        new: the same kind; a tuple equals a list of the same values, and floats are the same within
            `_ROUNDING`.
    """
    left, right = dict(_leaves("", old)), dict(_leaves("", new))
    found = [
        f"{name}: {_show(left, name)} -> {_show(right, name)}"
        for name in sorted(left.keys() | right.keys())
        if not _are_same(left.get(name, _ABSENT), right.get(name, _ABSENT))
    ]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "; ".join(found[:_SHOWN] + more)


def _are_same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=_ROUNDING)
    return bool(left == right)


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, list | tuple):
        yield f"{prefix} (length)", len(value)
        for i, inner in enumerate(value):
            yield from _leaves(f"{prefix}[{i}]", inner)
    else:
        yield prefix, value


def _show(leaves: dict[str, Any], name: str) -> str:
    return repr(leaves[name]) if name in leaves else _ABSENT
