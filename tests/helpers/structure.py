"""Rooms, floors and circles of the package, read from its imports.

    python tests/helpers/structure.py

Every import counts: those under TYPE_CHECKING and inside functions too.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
# From the top down. A room may import from its own floor and from those below.
FLOORS = (
    ("cli",),
    ("bench", "demo", "pruning"),
    ("integrations", "reporting", "scoring"),
    ("presets",),
    ("scorer",),
    ("heads",),
    ("backbone", "language"),
    ("naive", "submodels"),
    ("models", "selection"),
    ("data", "masking"),
    ("ops",),
    ("kernels", "path"),
    ("_native", "_util"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Return the package's modules by dotted name; a package is its `__init__`."""
    found = {}
    for folder, package in (("lc_engine", "lc_engine"), ("kernels", "lc_engine.kernels")):
        base = ROOT / folder
        for path in [*base.rglob("*.py"), *base.rglob("*.pyi")]:
            inner = path.relative_to(base).with_suffix("").parts
            if "kernels" in inner and folder == "lc_engine":
                continue  # a link that an editable install may have left
            parts = [package, *(part for part in inner if part != "__init__")]
            found[".".join(parts)] = path
    return found


def imports(path: Path, name: str, known: Mapping[str, Path]) -> set[str]:
    """Return the modules of the package that a file imports anywhere in it."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {one for node in ast.walk(tree) for one in _targets(node, package, known)} - {name}


def _targets(node: ast.AST, package: str, known: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            source = ".".join([*above, *filter(None, [source])])
        for alias in node.names:
            for target in (f"{source}.{alias.name}", source):
                if target in known:
                    yield target
                    break


def file_graph() -> Graph:
    """Return which module imports which."""
    known = modules()
    return {name: imports(path, name, known) for name, path in known.items()}


def room_graph(files: Graph, inside: str = "lc_engine") -> Graph:
    """Return which children of a package import from which of its other children."""
    rooms: Graph = defaultdict(set)
    for name, targets in files.items():
        room = _child(name, inside)
        if room is None:
            continue
        rooms[room] |= {other for target in targets if (other := _child(target, inside))} - {room}
    return dict(rooms)


def _child(name: str, inside: str) -> str | None:
    rest = name.removeprefix(f"{inside}.")
    return None if rest == name else rest.partition(".")[0]


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan, SIAM J. Comput. 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def upward(files: Graph) -> list[str]:
    """Return the imports that point from a room to one on a higher floor."""
    return [
        f"{name} -> {target}"
        for name, targets in sorted(files.items())
        for target in sorted(targets)
        if (room := _child(name, "lc_engine")) is not None
        and (other := _child(target, "lc_engine")) is not None
        and FLOOR_OF[other] < FLOOR_OF[room]
    ]


def packages(files: Iterable[str]) -> list[str]:
    """Return the dotted names that have modules below them."""
    return sorted({name.rpartition(".")[0] for name in files if "." in name})


def _lines(names: Iterable[str], known: Mapping[str, Path]) -> int:
    return sum(len(known[name].read_text(encoding="utf-8").splitlines()) for name in names)


def main() -> None:
    known, files = modules(), file_graph()
    rooms = room_graph(files)
    for floor, members in enumerate(FLOORS):
        print(f"floor {len(FLOORS) - floor}")
        for room in members:
            inside = [name for name in known if _child(name, "lc_engine") == room]
            below = ", ".join(sorted(rooms.get(room, ()))) or "nothing"
            print(f"  {room}: {len(inside)} files, {_lines(inside, known):,} lines; uses {below}")
    loose = [p.name for p in (ROOT / "lc_engine").iterdir() if p.suffix in (".py", ".pyi")]
    print(f"modules at the package root: {len(loose)} ({', '.join(sorted(loose))})")
    found = circles(files)
    for package in packages(known):
        found += circles(room_graph(files, package))
    print(f"circles of files or rooms: {len(found)}")
    for group in found:
        print("  " + " <-> ".join(group))
    print("arrows that point up:", "".join(f"\n  {arrow}" for arrow in upward(files)) or "none")


if __name__ == "__main__":
    main()
