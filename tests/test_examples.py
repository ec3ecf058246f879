"""The programs of examples/; `make examples` runs them whole."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import tomllib

import pytest

import lc_engine as lc
from helpers.pages import PAGES, ROOT

FOLDER = ROOT / "examples"
PROGRAMS = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
programs = pytest.mark.parametrize("name", sorted(PROGRAMS))


def imports(program):
    """Yield the modules that a program imports, with the names that it takes from each."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, tuple(alias.name for alias in node.names)


@pytest.mark.slow
@programs
def test_what_it_imports_is_there(name):
    missing = []
    for module, names in imports(PROGRAMS[name]):
        top = module.partition(".")[0]
        if importlib.util.find_spec(top) is None:
            missing.append(top)
            continue
        found = importlib.import_module(module)
        assert [one for one in names if not hasattr(found, one)] == []
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make example-{name}")


@programs
def test_it_uses_nothing_that_is_not_documented(name):
    program = PROGRAMS[name]
    used = {
        node.attr
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Attribute)
        if isinstance(node.value, ast.Name) and node.value.id == "lc"
    }
    assert used <= set(lc.__all__)
    documented = "".join(text for page, text in PAGES.items() if page.startswith("docs/"))
    for module, names in imports(program):
        if module.startswith("lc_engine."):
            assert [one for one in names if f"{module}.{one}" not in documented] == []


@programs
def test_its_head_says_what_it_needs(name):
    """`make example-NAME` runs these lines."""
    asked = re.findall(r"^#? +pip install (.+)$", PROGRAMS[name], re.M)
    (extras,) = re.findall(r"lc_engine\[([\w,]+)\]", asked[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@programs
def test_its_head_says_how_long_it_takes(name):
    words = PROGRAMS[name].replace("\n# ", " ").replace("\n", " ")
    assert re.search(r"Takes \d+ s on one thread of an \w+", words)


@programs
def test_make_and_ci_run_it_and_the_folder_s_page_names_it(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert name in re.search(r"^EXAMPLES := (.+)$", makefile, re.M)[1].split()
    ci = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert name in re.search(r"example: \[(.+)\]", ci)[1].split(", ")
    assert f"[`{name}.py`]({name}.py)" in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_is_the_program(name):
    """`make notebook-NAME` writes it."""
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == list(split(PROGRAMS[name]))


def split(program):
    """Yield the cells of a program in the percent format: kind and source."""
    for cell in re.split(r"^# %%", program, flags=re.M)[1:]:
        head, _, body = cell.partition("\n")
        if head == " [markdown]":
            yield "markdown", re.sub(r"^# ?", "", body.strip(), flags=re.M)
        else:
            yield "code", body.strip()


def test_there_are_notebooks():
    assert NOTEBOOKS == ["conversations", "images"]
