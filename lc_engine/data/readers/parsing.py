"""Whatever a parser of a file raises, as one error that names the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lc_engine.data.faults import Fault, fault_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Turn an error of the block into a ValueError, unless it is the system's or the run's.

    Parsers raise anything on damaged bytes: NumPy a `TokenError`, Arrow an error that is no
    ValueError, `datasets` an AttributeError.

    Args:
        path: the file that is parsed.
        kind: what it should be, such as "Parquet".

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        if fault_of(error) is not Fault.ROW:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as {kind}: {reason}") from None
