"""The file `_config.json` that a run writes beside its scores, and that `--config` reads."""

from __future__ import annotations

import json
import platform
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from lc_engine._util.digests import config_digest
from lc_engine._util.json_file import parse_json_object, read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = "config.json"
# Of the file's layout: a file of another one is refused.
_VERSION = 1
# To write the file: each process at a run may spoil one, as it ends.
_ATTEMPTS = 100
# What is read. All else is for the reader of the file, and refused where it was edited.
_READ = ("options", "version", "digests")
_RESOLVED = {"versions", "head", "path", "masking", "device", "num_workers", "source"}


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
    found = dict(resolved) | {"versions": versions | {"python": platform.python_version()}}
    content = found | {
        "version": _VERSION,
        "options": dict(options),
        "digests": {name: _digest(value) for name, value in found.items()},
    }
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    for left in reversed(range(_ATTEMPTS)):
        try:
            atomic_write_text(side_file(folder, CONFIG), text)
            return
        except FileNotFoundError:
            # Another process at the same run ended, and cleaned up what is half-written.
            if not left or not folder.exists():
                raise


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


def read_config(file: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a file that `write_config` wrote.

    Args:
        file: written by `write_config`; its options may have been edited.
        kinds: name of each option that there may be -> `Annotated[type, typer.Option(...)]`.

    Raises:
        ValueError: a folder, another file, one of another version, or with another key or option;
            an option with a value that it cannot have; a value beside the options that was edited.
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
    outside = sorted(set(content) - _RESOLVED - set(_READ))
    if outside:
        raise ValueError(
            f'--config {file} has unknown keys: {", ".join(outside)}; options stand under "options"'
        )
    unknown = sorted(set(options) - set(kinds))
    if unknown:
        raise ValueError(f"--config {file} has unknown options: {', '.join(unknown)}")
    _check_resolved(file, content)
    for name, value in options.items():
        if isinstance(value, str) and _is_list(kinds[name]):
            options[name] = value = [value]
        wanted = _wanted(kinds[name], value)
        if wanted:
            raise ValueError(f"--config {file}: option {name} must be {wanted}, got {value!r:.80}")
    return options


@contextmanager
def with_config(file: Path | None) -> Iterator[None]:
    """Let errors of a command that reads a config file name it: the value may be the file's."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if file is not None:
            error.add_note(f"with the options of --config {file}")
        raise


def _is_list(kind: Any) -> bool:
    return get_origin(get_args(kind)[0]) is list


def _digest(value: Any) -> str:
    return config_digest({"value": value})


def _check_resolved(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse values beside the options that are not as `write_config` wrote them."""
    digests = content.get("digests")
    known = digests if isinstance(digests, dict) else {}
    edited = [
        name
        for name, value in sorted(content.items())
        if name not in _READ and known.get(name) != _digest(value)
    ]
    if edited:
        raise ValueError(
            f"--config {file}: {', '.join(edited)} is not as lc-engine wrote it, and is not read: "
            'change "options", and delete what stands beside them'
        )


def _wanted(kind: Any, value: Any) -> str | None:
    """Return what an option must be, where a JSON value is not that."""
    (annotated, *_), (option, *_) = get_args(kind), kind.__metadata__
    if get_origin(annotated) is list:
        texts = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
        return None if texts else "a text, or a list of them"
    union = annotated if get_origin(annotated) is not Literal else None
    members = [one for one in get_args(union) if one is not type(None)] or [annotated]
    if value is None:
        return None if type(None) in get_args(union) else "given"
    (member,) = members
    if get_origin(member) is Literal:
        choices = get_args(member)
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    names = {bool: "true or false", int: "an integer", float: "a number"}
    types = {bool: (bool,), int: (int,), float: (int, float)}.get(member, (str,))
    # Of bool too, which Python takes for an integer.
    if type(value) not in types:
        return names.get(member, "a text")
    if option.min is not None and not value >= option.min:
        return f"at least {option.min}"
    return None
