from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lc_engine as lc


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


ROOT = Path(__file__).parent.parent
HEAVY = "[m for m in ('torch', 'triton', 'pyarrow', 'timm') if m in sys.modules]"


def test_the_import_is_light():
    assert run(f"import sys, lc_engine; print({HEAVY})") == "[]"
    assert run(f"import sys, lc_engine as lc; lc.LearningPath.gauss(3); print({HEAVY})") == "[]"


@pytest.mark.parametrize("first", ["", "import lc_engine.select.flexrand; "])
def test_select_is_a_function_and_a_package(first):
    assert (
        run(
            first + "import lc_engine as lc; import types; "
            "assert isinstance(lc.select, types.FunctionType); "
            "from lc_engine.select import flexrand, select; "
            "assert lc.select is select; import lc_engine.select.budget; "
            "print(isinstance(lc.select, types.FunctionType))"
        )
        == "True"
    )


def test_every_public_name_is_there():
    for name in lc.__all__:
        assert getattr(lc, name) is not None
        assert name in dir(lc)
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = lc.scores


def test_every_folder_of_code_is_packed():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent for path in (ROOT / "lc_engine").rglob("__init__.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(asked["tool"]["setuptools"]["packages"]) == names | {"lc_engine.kernels"}
