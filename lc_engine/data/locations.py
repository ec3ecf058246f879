"""Locations of data: a local path, or a URL that fsspec knows (s3://, gs://, …)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What stands before the "=" of a location with a name.
_NAMED: Final = re.compile(r"([\w-][\w.-]*)=(.+)", re.DOTALL)
# Of the folder of a data set of `datasets`: one that was saved, one in the cache.
_OF_SET: Final = ("state.json", "dataset_info.json")


def to_path(location: Any) -> Path:
    """Return a path, or for a URL a `UPath`, which behaves like one.

    Raises:
        MissingExtraError: a URL, and universal-pathlib is not installed.
    """
    if is_remote(location):
        return cast("Path", location)
    if isinstance(location, str) and "://" in location:
        return cast("Path", require("upath", "remote").UPath(location))
    return Path(location)


def named_locations(locations: Sequence[str]) -> str | dict[str, str]:
    """Return a lone location as it is, several by name.

    Args:
        locations: each NAME=LOCATION, or a location that goes by its name up to the first dot.

    Raises:
        ValueError: two have the same name.
    """
    found: dict[str, str] = {}
    for location in locations:
        named = None if Path(location).exists() else _NAMED.fullmatch(location)
        if named is None and len(locations) == 1:
            return location
        name = named[1] if named else Path(location).name.partition(".")[0]
        if name in found:
            raise ValueError(
                f"data: {location} and {found[name]} both go by the name {name}: write NAME=PATH"
            )
        found[name] = named[2] if named else location
    return found


def absolute_location(location: str) -> str:
    """Return a location, or NAME=LOCATION, that holds in any folder, if it is a local path."""
    if Path(location).exists():
        return str(Path(location).resolve())
    named = _NAMED.fullmatch(location)
    return f"{named[1]}={absolute_location(named[2])}" if named else location


def is_remote(location: Any) -> bool:
    """Return whether a location is the path that `to_path` returns for a URL."""
    return type(location).__module__.partition(".")[0] == "upath"


def folders_of(data: Any) -> tuple[Path, ...]:
    """Return the local folders that data are read from as a whole, as far as that is known.

    Args:
        data: a location, or a list or mapping of them; a source or records, which keep them in
            `folders`; a `datasets.Dataset`, which is in the folder that `save_to_disk` wrote or in
            that of the cache; an `ImageFolder` or `DatasetFolder` of torchvision; a subset of such
            a data set of torch. Anything else has no folder.
    """
    if isinstance(data, str | os.PathLike):
        return () if "://" in str(data) or not Path(data).is_dir() else (Path(data).absolute(),)
    if isinstance(data, Mapping):
        return tuple(folder for one in data.values() for folder in folders_of(one))
    known = getattr(data, "folders", None)
    if isinstance(known, tuple) and all(isinstance(one, Path) for one in known):
        return known
    if isinstance(data, list | tuple):
        named = (one for one in data if isinstance(one, str | os.PathLike))
        return tuple(folder for one in named for folder in folders_of(one))
    kinds = {kind.__name__ for kind in type(data).__mro__}
    if "DatasetFolder" in kinds:
        return folders_of(getattr(data, "root", None))
    if "Subset" in kinds:
        return folders_of(getattr(data, "dataset", None))
    if type(data).__module__.partition(".")[0] != "datasets":
        return ()
    files = getattr(data, "cache_files", None)
    parents = {Path(entry["filename"]).parent for entry in files or () if isinstance(entry, dict)}
    # Not of a lone Arrow file, beside which anything may lie.
    return tuple(sorted(one for one in parents if any((one / name).exists() for name in _OF_SET)))


def check_outside(out: Path, data: Any) -> None:
    """Refuse to write into the folder that holds the data.

    Args:
        out: the file or folder to write.
        data: see `folders_of`.

    Raises:
        ValueError: `out` is the folder of the data, or inside it.
    """
    for folder in folders_of(data):
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"out: {out} is inside the data, {folder}, and would be read as data the next "
                "time: choose a path outside that folder"
            )


@contextmanager
def for_arrow(path: Path) -> Iterator[Path | IO[bytes]]:
    """Yield what Arrow reads: a local path as it is, a remote one as an open file."""
    with ExitStack() as stack:
        yield stack.enter_context(path.open("rb")) if is_remote(path) else path
