"""What two texts begin and end with, and tags, of which neither is to hold a part only."""

from __future__ import annotations

from typing import Final

# Longest tag, such as <|start_header_id|>.
_TAG: Final = 40


def common_prefix(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_suffix(one: str, other: str) -> int:
    """Return how many characters two texts end with in common."""
    return common_prefix(one[::-1], other[::-1])


def before_tag(text: str, at: int, low: int) -> int:
    """Return a position, or if it is inside a tag in `text[low:]`, that of the tag's start."""
    for opened, closed in ("<>", "[]"):
        start = text.rfind(opened, max(low, at - _TAG), at)
        if start < 0 or closed in text[start:at]:
            continue
        stop = text.find(closed, at, at + _TAG)
        if stop >= 0 and not any(c.isspace() or c in "<[{\"'" for c in text[start + 1 : stop]):
            return start
    return at
