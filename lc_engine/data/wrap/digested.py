"""A source whose digest is computed once for a run, and beside what else the run does."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lc_engine.data.identity import check_unchanged
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.data.wrap.mixture import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.batch import Batch, Source


class Digested:
    """The rows of a source, whose digest is that of the moment at which a run began.

    Args:
        source: the rows.
        digest: returns that of the rows.
    """

    def __init__(self, source: Source, digest: Callable[[], str]) -> None:
        self.source, self._digest = source, digest
        self.classes = source.classes
        self.num_workers = getattr(source, "num_workers", None)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.source)

    def digest(self) -> str:
        """Return the fingerprint of the source, once it is known."""
        return self._digest()

    def describe(self) -> dict[str, Any]:
        """Return the description of the source."""
        return self.source.describe()

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        check_unchanged(self.source, rows)

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order; see `Source.batches`."""
        return self.source.batches(batch_size, start, stop)


@contextmanager
def digested(source: Source) -> Iterator[Digested]:
    """Yield a source with its digest, which is computed once.

    Arrays in memory are hashed whole, at about 1 GB/s: in a thread, while the run does what does
    not need the digest. That of anything else takes little, and may run code of the user's, which
    no other thread should: it is computed where it is first asked for.
    """
    if not all(isinstance(one, ArraySource) for one in parts_of(source)):
        yield Digested(source, functools.cache(source.digest))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="lc-digest") as thread:
        yield Digested(source, thread.submit(source.digest).result)
