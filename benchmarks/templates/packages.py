"""Chat templates and tokenizers of real model families, from the packages that carry them.

TRL and axolotl are wheels that are read without installing them. llama-cpp-python is published as
source alone: pip downloads it once, and its templates and vocabularies are kept in the cache.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from lc_engine._util import wheels

TRL: Final = ("trl", "1.16.0")
AXOLOTL: Final = ("axolotl", "0.19.0")
LLAMA_CPP: Final = ("llama-cpp-python", "0.3.36")

_FOLDERS: Final = {
    TRL: "trl/chat_templates/",
    AXOLOTL: "axolotl/utils/chat_templates/templates/",
}
_MODELS: Final = "vendor/llama.cpp/models/"


def chat_templates() -> dict[str, str]:
    """Return the Jinja text of every template, by package and file: "trl/qwen3"."""
    found = {}
    for package, folder in _FOLDERS.items():
        for name in wheels.names(*package, folder):
            if name.endswith(".jinja"):
                text = wheels.read(*package, name).decode()
                found[f"{package[0]}/{Path(name).stem}"] = text
    for file in sorted((llama_cpp_models() / "templates").glob("*.jinja")):
        found[f"{LLAMA_CPP[0]}/{file.name.removesuffix('.jinja')}"] = file.read_text("utf-8")
    return found


def llama_cpp_models() -> Path:
    """Return llama.cpp's folder of models: `templates/` and vocabularies, `ggml-vocab-*.gguf`.

    Raises:
        RuntimeError: pip could not download the package.
    """
    name, version = LLAMA_CPP
    folder = wheels.cache_folder() / "sources" / f"{name}-{version}-models"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        # pip asks the package for its metadata, which takes about a minute.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", f"--no-binary={name}"]
        done = subprocess.run(
            [*command, "--quiet", "--dest", temporary, f"{name}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(temporary).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise RuntimeError(f"{name} {version} could not be downloaded: {done.stderr.strip()}")
        made = Path(temporary) / "models"
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                inside = member.name.partition("/")[2]
                if member.isfile() and inside.startswith(_MODELS):
                    member.name = inside.removeprefix(_MODELS)
                    archive.extract(member, made, filter="data")
        made.replace(folder)
    return folder
