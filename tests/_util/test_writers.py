"""Every file that the package writes is written through `_util.atomic_write`."""

from __future__ import annotations

import ast
from pathlib import Path

import lc_engine

ROOT = Path(lc_engine.__file__).parent
WRITERS = {
    *("write_text", "write_bytes", "savefig", "savetxt", "save", "savez", "savez_compressed"),
    *("tofile", "write_table", "write_csv", "ParquetWriter", "save_file", "save_pretrained"),
    *("to_csv", "to_json", "to_parquet", "copyfile", "copytree"),
}
_ASIDE = "the temporary path of write_subset, or a folder aside, which is renamed"
# Functions that write to a path of their own, and why what they leave never looks finished.
NOT_IN_PLACE = {
    "bench/jobs.py language_demo_job": "its input, into a temporary folder of the bench",
    "bench/language_data.py mini_lm": "into a folder aside, which is renamed",
    "bench/language_data.py smollm2": "into a folder aside, which is renamed",
    "bench/language_data.py smollm2_gguf": "into a folder aside, which is renamed",
    "bench/memory.py _reset": "into /proc",
    "data/readers/hf_datasets.py _as_bytes": "an Arrow stream in memory",
    "data/run/leases.py _create": "a temporary file, which is linked",
    "data/run/ledger.py _open": "the temporary path of write_once",
    "data/writers/arrays.py copy_npy": _ASIDE,
    "data/writers/arrays.py copy_safetensors": _ASIDE,
    "data/writers/delimited.py copy_delimited": _ASIDE,
    "data/writers/json_rows.py _writing": _ASIDE,
    "data/writers/json_rows.py copy_list": _ASIDE,
    "data/writers/parquet.py _write": _ASIDE,
    "data/writers/parquet.py copy_parquet": _ASIDE,
    "data/writers/tars.py copy_samples": _ASIDE,
    "demo/digits.py write_folders": "images into a folder that is new",
    "integrations/less.py write_less": "torch.save into memory",
    "pruning/reasons.py suspicious_csv": "a text in memory",
    "reporting/previews.py thumbnail": "an image in memory",
    "reporting/sections.py suspicious_csv": "a text in memory",
    "scorer/learnt.py _kept": "the temporary path of write_once",
    "scorer/learnt.py save": "the temporary path of write_once",
}


class Writers(ast.NodeVisitor):
    """Collects the functions that call a writer outside of `with atomic_write(…)`."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._function = "<module>"
        self._atomic = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = outer

    def visit_With(self, node: ast.With) -> None:
        outer = self._atomic
        for item in node.items:
            self.visit(item)
            self._atomic |= called(item.context_expr) == "atomic_write"
        for child in node.body:
            self.visit(child)
        self._atomic = outer

    def visit_Call(self, node: ast.Call) -> None:
        name = called(node)
        if not self._atomic and (name in WRITERS or (name == "open" and opens_for_writing(node))):
            self.found.add(self._function)
        self.generic_visit(node)


def called(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def opens_for_writing(node: ast.Call) -> bool:
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    modes = (one.value for one in given if isinstance(one, ast.Constant))
    return any(isinstance(m, str) and len(m) < 4 and set(m) & set("wax+") for m in modes)


def writers(source: str) -> set[str]:
    visitor = Writers()
    visitor.visit(ast.parse(source))
    return visitor.found


def test_nothing_is_written_in_place():
    found = set()
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name != "_util/atomic_write.py":
            found |= {f"{name} {function}" for function in writers(path.read_text("utf-8"))}
    assert found == set(NOT_IN_PLACE)


def test_a_writer_in_place_is_found_and_one_aside_is_not():
    assert writers("def f(p):\n    with p.open('w') as file:\n        file.write('x')") == {"f"}
    assert writers("def f(p):\n    open(p, mode='r+b')\n    np.save(p, x)") == {"f"}
    assert (
        writers("def f(p):\n    with atomic_write(p) as t, t.open('wb') as g:\n        pass")
        == set()
    )
    assert writers("def f(p):\n    figure.savefig(p)") == {"f"}
    assert writers("def f(p):\n    p.open('rb')\n    p.open()") == set()
