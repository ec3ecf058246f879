"""What is released: the files of the sdist and of the wheel, without compiling."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("pybind11")

ROOT = Path(__file__).parents[1]
FOLDERS = ("csrc", "kernels", "lc_engine")
FILES = (
    "CHANGELOG.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
# What setuptools writes into every sdist.
WRITTEN = {"PKG-INFO", "setup.cfg"}
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a copy, unpacked: setuptools packs the files of earlier builds again."""
    work = tmp_path_factory.mktemp("packaging")
    source = work / "source"
    for name in (*FOLDERS, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(work)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (packed,) = work.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    return unpacked


@pytest.mark.slow
def test_the_sdist_holds_what_a_build_needs_and_no_tests(sdist: Path) -> None:
    sources = {
        f"{name}/{file}"
        for name in FOLDERS
        for file in files_in(sdist.parents[1] / "source" / name)
    }
    packed = {file for file in files_in(sdist) if not file.startswith("lc_engine.egg-info/")}
    assert packed == sources | set(FILES) | WRITTEN


@pytest.mark.slow
def test_a_wheel_of_the_sdist_holds_every_module_and_asset(sdist: Path, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=sdist, check=True, capture_output=True)
    package = {f"lc_engine/{file}" for file in files_in(ROOT / "lc_engine")}
    kernels = {f"lc_engine/kernels/{file}" for file in files_in(ROOT / "kernels")}
    wanted = {
        file
        for file in package | kernels
        if "__pycache__" not in file and not file.endswith((".so", ".pyd"))
    }
    assert files_in(tmp_path) == wanted
