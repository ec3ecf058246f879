from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

import lc_engine as lc
from helpers import public_api
from helpers.pages import PAGES, ROOT


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


HEAVY = "[m for m in ('torch', 'triton', 'pyarrow', 'timm') if m in sys.modules]"


def test_the_import_is_light():
    assert run(f"import sys, lc_engine; print({HEAVY})") == "[]"
    assert run(f"import sys, lc_engine as lc; lc.LearningPath.gauss(3); print({HEAVY})") == "[]"


def test_every_public_name_is_there():
    for name in lc.__all__:
        assert getattr(lc, name) is not None
        assert name in dir(lc)
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = lc.scores


def test_every_public_name_is_in_the_reference():
    page = PAGES["docs/reference/python.md"]
    named = [
        home if name == "presets" else f"{home}.{name}"
        for name, home in lc._HOMES.items()
        if name != "ops"  # on a page of its own
    ]
    assert [name for name in named if f"::: {name}\n" not in page] == []


def test_the_public_names_are_those_that_were_promised():
    promised = public_api.FILE.read_text(encoding="utf-8").splitlines()
    found = list(public_api.lines())
    changes = [f"- {line}" for line in promised if line not in found]
    changes += [f"+ {line}" for line in found if line not in promised]
    text = "\n".join(changes)
    assert not changes, f"for the changelog, then run tests/helpers/public_api.py:\n{text}"


def test_every_place_states_the_same_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", citation, re.M) == [project["version"]]
    assert re.findall(r"^## (\S+)", PAGES["CHANGELOG.md"], re.M)[0] == project["version"]
