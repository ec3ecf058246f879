from __future__ import annotations

import sys

import pytest

from lc_engine._util.extras import MissingExtraError, require


def test_an_installed_module_is_returned():
    assert require("xml.dom", "table") is sys.modules["xml.dom"]


@pytest.mark.parametrize("name", ["surely_not_installed", "surely_not_installed.inner"])
def test_a_missing_package_is_named_with_its_extra(name):
    with pytest.raises(
        MissingExtraError, match=r'surely_not_installed.*pip install "lc_engine\[table\]"'
    ):
        require(name, "table")


def test_a_package_blocked_in_sys_modules(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        require("pyarrow", "table")


def test_a_package_that_is_there_but_broken_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed") as caught:
        require("half_installed", "table")
    assert not isinstance(caught.value, MissingExtraError)
