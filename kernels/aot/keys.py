"""Keys of cases: a case whose key has not changed compiles to the same program.

A key hashes the device code of the kernel's file and of the files that it imports, the case, the
options of every launch and Triton's version. Comments, docstrings and host code are left out, so
they cost no compilation.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import triton

from lc_engine.kernels import config
from lc_engine.kernels.aot.cases import KERNELS
from lc_engine.kernels.aot.signature import signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.kernels.aot.cases import Case

PACKAGE = "lc_engine.kernels"
FOLDER = Path(__file__).parents[1]


def key(case: Case, folder: Path = FOLDER) -> str:
    """Return the key of a case whose kernel lies in `folder`: 16 hexadecimal digits."""
    function = KERNELS[case.kernel].fn
    code = device_code(folder / Path(inspect.getfile(function)).name)
    facts = (
        code, function.__name__, case, signature(case), config.OPTIONS, triton.__version__,
    )  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@functools.cache
def device_code(path: Path) -> str:
    """Return the device code of a file and of the kernels' files that it imports, transitively."""
    found: dict[Path, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found[file] = "\n".join(ast.unparse(node) for node in tree.body if _on_device(node))
        waiting += _imported(tree, path.parent)
    return "\n".join(found[file] for file in sorted(found))


def _on_device(node: ast.stmt) -> bool:
    """Return whether a statement is a kernel or a constant of one; drop a kernel's docstring."""
    if isinstance(node, ast.FunctionDef):
        if ast.get_docstring(node) is not None:
            del node.body[0]
        return any(ast.unparse(one).startswith("triton.") for one in node.decorator_list)
    # Kernels can read no other globals.
    return isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("tl.constexpr(")


def _imported(tree: ast.Module, folder: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (folder / f"{alias.name}.py" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            yield folder / f"{node.module.removeprefix(PACKAGE + '.')}.py"
