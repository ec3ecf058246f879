"""Every page: its links, the paths, modules and commands that it names."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import typer

import lc_engine as lc
from benchmarks import imports
from helpers.pages import PAGES, PROGRAMS, ROOT, anchors, commands, links, spans
from helpers.structure import FLOORS
from lc_engine import ops
from lc_engine.cli.app import app

FOLDERS = ("benchmarks", "csrc", "docs", "examples", "kernels", "lc_engine", "tests")
WRITTEN = {"benchmarks/latest.json"}  # by the commands that name them
PLACEHOLDER = re.compile(r"<\w+>|my_operator|…")
pages = pytest.mark.parametrize("page", PAGES)


def exists(path):
    """Whether a path, a pattern or a module of the repository is there."""
    return path in WRITTEN or any(ROOT.glob(path.rstrip("/")))


@pages
def test_no_merge_is_half_done(page):
    assert re.findall(r"^(?:<{7}|={7}|>{7})(?: .*)?$", PAGES[page], re.M) == []


@pages
def test_links_lead_somewhere(page):
    lost = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        name = file.resolve().relative_to(ROOT).as_posix() if file.exists() else None
        if name is None or (anchor and anchor not in anchors(name)):
            lost.append(target)
    assert lost == []


@pages
def test_paths_in_the_text_exist(page):
    lost = []
    for span in spans(page):
        for word in re.split(r"[\s:,]+", span):
            named = word.split("::")[0].split("#")[0]
            is_ours = named.partition("/")[0] in FOLDERS and "/" in named
            for path in expanded(named) if is_ours and not PLACEHOLDER.search(named) else ():
                if not exists(path):
                    lost.append(path)
    assert lost == []


def expanded(pattern):
    """Return a path once for each of the names in its braces."""
    found = re.search(r"\{([^{}]+)\}", pattern)
    if found is None:
        return [pattern]
    return [
        path
        for name in found[1].split(",")
        for path in expanded(pattern[: found.start()] + name + pattern[found.end() :])
    ]


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"CHANGELOG.md"}))  # names what is gone
def test_modules_in_the_text_exist(page):
    lost = [
        span
        for span in spans(page)
        if re.match(r"lc_engine\.\w", span) and not PLACEHOLDER.search(span)
        if not names_something(re.match(r"[\w.]+", span)[0].rstrip("."))
    ]
    assert lost == []


def names_something(dotted):
    """Whether a dotted name is a module of the package, or a name that one of them mentions."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        base = Path("kernels" if parts[1:2] == ["kernels"] else "lc_engine")
        inner = parts[2:end] if base.name == "kernels" else parts[1:end]
        for path in (ROOT / base / Path(*inner)).with_suffix(".py"), ROOT / base / Path(*inner):
            if path.is_file() or (path / "__init__.py").is_file():
                file = path if path.is_file() else path / "__init__.py"
                text = file.read_text(encoding="utf-8")
                return end == len(parts) or re.search(rf"\b{parts[end]}\b", text) is not None
    return False


@pages
def test_operators_in_the_text_exist(page):
    named = {found for span in spans(page) for found in re.findall(r"\bops\.(\w+)", span)}
    assert [name for name in sorted(named) if not hasattr(ops, name)] == []


@pages
def test_commands_name_what_exists(page):
    assert [mistake for words in commands(page) for mistake in mistakes(words)] == []


def mistakes(words):
    """Yield what a command line names and the project does not have."""
    program, *rest = words
    if program == "lc-engine":
        yield from wrong_options(rest)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in rest if "=" not in word]
        yield from (t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.M))
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = re.findall(r"(?:^|\s)(?:\.|lc_engine)\[([\w,-]+)\]", " ".join(rest))
        extras = {extra for listed in asked for extra in listed.split(",")}
        yield from extras - set(project["optional-dependencies"])
    elif program in ("pytest", "python"):
        yield from wrong_script(rest)


def wrong_options(words):
    known = typer.main.get_command(app).commands
    words = words[2:] if words[0] == "--log" else words
    name = words[0]
    if name not in known:
        if name not in ("…", "COMMAND", "--version", "--help"):
            yield f"lc-engine {name}"
        return
    options = {opt for param in known[name].params for opt in (*param.opts, *param.secondary_opts)}
    for word in words[1:]:
        if word.startswith("--") and word.split("=")[0] not in options:
            yield f"lc-engine {name} {word}"


def wrong_script(words):
    """Yield the module or script that is not there, and options that its folder never mentions."""
    if words[0] == "-m" and words[1].partition(".")[0] in FOLDERS:
        # The kernels lie at the root.
        base = words[1].replace("lc_engine.kernels", "kernels").replace(".", "/")
        candidates = (f"{base}.py", f"{base}/__main__.py")
        scripts = [path for path in candidates if (ROOT / path).is_file()]
        arguments = words[2:]
    elif words[0].partition("/")[0] in FOLDERS:
        scripts = [words[0]] if (ROOT / words[0]).exists() else []
        arguments = words[1:]
    else:
        return
    if not scripts:
        yield words[0] if words[0] != "-m" else words[1]
        return
    folder = (ROOT / scripts[0]).parent
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for word in arguments:
        if word.startswith("--") and f'"{word}"' not in text and "benchmark" not in word:
            yield f"{scripts[0]} {word}"


def test_the_modules_whose_import_is_timed_exist():
    assert [name for name in imports.MODULES if importlib.util.find_spec(name) is None] == []


def test_contributing_shows_the_floors():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGES["CONTRIBUTING.md"], re.M)
    shown = [tuple(re.findall(r"`(\w+)`", rooms)) for _, rooms in rows]
    assert shown == [tuple(rooms) for rooms in FLOORS]
    assert [int(floor) for floor, _ in rows] == list(range(len(FLOORS), 0, -1))


def test_contributing_names_the_variables_that_are_read():
    named = set(re.findall(r"^\| `(LC_ENGINE_\w+)`", PAGES["CONTRIBUTING.md"], re.M))
    patterns = ("lc_engine/**/*.py", "csrc/**/*.cpp", "kernels/**/*.py", "tests/**/*.py")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    text = "".join(path.read_text(encoding="utf-8") for path in files if path != Path(__file__))
    assert named == set(re.findall(r"\bLC_ENGINE_[A-Z]+\b", text))


@pytest.mark.parametrize("module", [lc, ops], ids=lambda module: module.__name__)
def test_the_reference_has_every_public_name(module):
    """By the file of each: a function that a file is named after is hidden by it elsewhere."""
    page = PAGES[f"docs/reference/{'ops' if module is ops else 'python'}.md"]
    entries = re.findall(r"^::: (\S+)$", page, re.M)
    shown = {entry.rpartition(".")[2]: pkgutil.resolve_name(entry) for entry in entries}
    in_text = {"ops", "__version__"} if module is lc else set()  # a page of its own, and a string
    assert shown == {name: getattr(module, name) for name in set(module.__all__) - in_text}
    assert all(f"`lc_engine.{name}`" in page for name in in_text)


def test_the_first_page_has_every_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = re.findall(r"^\| (`.+?) \|", PAGES["docs/index.md"], re.M)
    named = [name for cell in table for name in re.findall(r"`([\w-]+)`", cell)]
    assert sorted(named) == sorted(project["optional-dependencies"])


def test_commands_were_found():
    found = [words for page in PAGES for words in commands(page)]
    assert {words[0] for words in found} == set(PROGRAMS)
