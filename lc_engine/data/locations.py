"""Where data lie: a path of this machine, or a URL that fsspec knows (s3://, gs://, …)."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator


def to_path(place: Any) -> Path:
    """Return a path, or of a URL what behaves like one; see `is_remote`.

    Raises:
        MissingExtraError: a URL, and universal-pathlib is not installed.
    """
    if is_remote(place):
        return cast("Path", place)
    if isinstance(place, str) and "://" in place:
        return cast("Path", require("upath", "remote").UPath(place))
    return Path(place)


def is_remote(place: Any) -> bool:
    """Tell whether something is a path that `to_path` made of a URL."""
    return type(place).__module__.partition(".")[0] == "upath"


@contextmanager
def for_arrow(path: Path) -> Iterator[Path | IO[bytes]]:
    """Give what Arrow reads a file by: its path, or an open file where that is elsewhere."""
    with ExitStack() as stack:
        yield stack.enter_context(path.open("rb")) if is_remote(path) else path
