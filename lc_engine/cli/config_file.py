"""The file `_config.json` that a run writes beside its scores, and that `--config` reads."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lc_engine._util.json_file import parse_json_object, read_json_object

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

CONFIG = "config.json"
# Of the file's layout: a file of another one is refused.
_VERSION = 1
_KEYS = {
    "options",
    "version",
    "versions",
    "head",
    "path",
    "masking",
    "device",
    "num_workers",
    "source",
}


def write_config(folder: Path, options: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Write the options of a run into its folder.

    Args:
        folder: of the run.
        options: as they were given, as JSON values.
        resolved: what they came to with this model and these data, as JSON values.
    """
    from lc_engine._util.atomic_write import atomic_write_text
    from lc_engine.data.run.side_files import side_file

    versions = {name: version(name) for name in ("lc_engine", "torch", "numpy")}
    content = dict(resolved) | {
        "version": _VERSION,
        "options": dict(options),
        "versions": versions | {"python": platform.python_version()},
    }
    atomic_write_text(
        side_file(folder, CONFIG), json.dumps(content, indent=2, sort_keys=True) + "\n"
    )


def check_config(folder: Path) -> None:
    """Refuse a folder whose `config.json` is another tool's, such as a model's.

    Raises:
        ValueError: `write_config` did not write the file.
    """
    from lc_engine.data.run.side_files import side_file

    file = side_file(folder, CONFIG)
    if not file.exists():
        return
    try:
        versions = read_json_object(file).get("versions")
    except ValueError:
        versions = None
    if not isinstance(versions, dict) or "lc_engine" not in versions:
        raise ValueError(
            f"--out {folder} holds a {CONFIG} that lc-engine did not write and would replace: "
            "choose another folder"
        )


def read_config(file: Path, known: Collection[str]) -> dict[str, Any]:
    """Return the options in a file that `write_config` wrote.

    Args:
        file: written by `write_config`.
        known: names that an option may have.

    Raises:
        ValueError: a folder, another file, one of another version, or with another key or option.
        FileNotFoundError: there is no file.
    """
    if file.is_dir():
        raise ValueError(f"--config {file} is a folder: give the _{CONFIG} in it")
    if not file.exists():
        raise FileNotFoundError(f"--config {file} does not exist")
    remedy = "give one that `lc-engine score` wrote"
    content = parse_json_object(file.read_bytes(), f"--config {file}", remedy)
    found = content.get("version")
    if found != _VERSION:
        raise ValueError(
            f"--config {file} has version {found}; this lc-engine reads version {_VERSION}, as "
            "`lc-engine score` writes it"
        )
    options: Any = content.get("options")
    if not isinstance(options, dict):
        raise ValueError(f"--config {file} has no options")
    outside = sorted(set(content) - _KEYS)
    if outside:
        raise ValueError(
            f'--config {file} has unknown keys: {", ".join(outside)}; options stand under "options"'
        )
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"--config {file} has unknown options: {', '.join(unknown)}")
    return options
