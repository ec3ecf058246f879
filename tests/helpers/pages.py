"""The pages of the documentation, read as text: programs, commands, links, names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
PROGRAMS = ("lc-engine", "make", "pip", "pytest", "python")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def programs(page: str) -> list[str]:
    """Return the Python programs of a page."""
    return [body for language, body in _FENCE.findall(PAGES[page]) if language == "python"]


def steps(page: str) -> list[str | list[str]]:
    """Return the programs and command lines (as words) that a page sets apart, in order."""
    command = rf"^ {{4}}((?:{'|'.join(PROGRAMS)}) .*)$"
    found = re.finditer(rf"^```python\n([\s\S]*?)^```$|{command}", PAGES[page], re.M)
    return [match[1] or shlex.split(re.sub(r"\s#.*", "", match[2])) for match in found]


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", PAGES[page])


def spans(page: str) -> list[str]:
    """Return what stands in backticks in the text of a page."""
    return _SPAN.findall(prose(page))


def links(page: str) -> list[str]:
    """Return the targets of a page's links and images that lie in the repository."""
    targets = re.findall(r"\]\(([^()\s]+)\)", prose(page))
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    bare = (re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in bare}


def commands(page: str) -> list[list[str]]:
    """Return the command lines that a page shows in blocks and in its text, split into words."""
    shown = [body for language, body in _FENCE.findall(PAGES[page]) if language in ("", "bash")]
    shown += re.findall(r"^ {4}(\S.*)$", prose(page), re.M)
    shown += spans(page)
    return [words for text in shown for line in text.splitlines() for words in _split(line)]


def _split(line: str) -> Iterator[list[str]]:
    for command in re.split(r"\s&&?\s", re.sub(r"(^|\s)#.*", "", line)):
        if command.split(" ")[0] in PROGRAMS and " " in command:
            yield shlex.split(command)
