"""The ledger of a run: which shards are done, so that a killed run continues where it was.

A shard is written aside, flushed to the disk and renamed, so its file is either whole or not there.
The manifest says what the scores depend on; another run is refused, never mixed in.
"""

from __future__ import annotations

import bisect
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine._util.differences import differences
from lc_engine._util.extras import require
from lc_engine.data.run.atomic_write import aside, flush, publish_first
from lc_engine.data.run.leases import Leases
from lc_engine.data.table import ScoreTable
from lc_engine.data.table_files import PART_PATTERN

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

FORMAT = 1
MANIFEST = "manifest.json"

# Between two looks at shards that other processes are working on.
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of the source, and the file that will hold their scores."""

    index: int
    start: int
    stop: int
    path: Path

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.stop - self.start

    @property
    def lease(self) -> Path:
        """The file that says that a process is working on the shard."""
        return self.path.with_suffix(".lease")


class Ledger:
    """An output folder that holds exactly one run, cut in shards with deterministic names.

    Several processes may work in one folder: they share the shards by leases, and a shard that two
    of them do after all is the same file.

    Args:
        out_dir: created if it is not there.
        manifest: JSON-like fields that the scores depend on (digests of model and data, masking,
            path, head, dtype). Two runs whose manifests are equal write the same files.
        rows: rows of the source.
        shard_rows: rows in a shard, but for the last one.

    Raises:
        ValueError: the folder holds another run (the text names the fields that differ), or score
            files without a manifest, or a manifest that is no JSON.
    """

    def __init__(
        self, out_dir: str | Path, manifest: Mapping[str, Any], rows: int, shard_rows: int = 65536
    ) -> None:
        if rows < 0 or shard_rows < 1:
            raise ValueError(
                f"rows must be at least 0 and shard_rows at least 1, got {rows} and {shard_rows}"
            )
        self.out_dir = Path(out_dir)
        described = {**manifest, "format": FORMAT, "rows": rows, "shard_rows": shard_rows}
        # What is compared is what a file can hold: tuples are lists there.
        self.manifest: dict[str, Any] = json.loads(json.dumps(described))
        # A source without rows still has one (empty) shard, so that a finished run has a table.
        total = max(1, -(-rows // shard_rows))
        self.shards = [
            Shard(
                index,
                index * shard_rows,
                min((index + 1) * shard_rows, rows),
                self.out_dir / f"part-{index:05d}-of-{total:05d}.parquet",
            )
            for index in range(total)
        ]
        self._leases: Leases | None = None
        self._open()

    def _open(self) -> None:
        try:
            self.out_dir.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(f"out: {self.out_dir} is a file, not a folder") from None
        path = self.out_dir / MANIFEST
        if not path.exists():
            if any(self.out_dir.glob(PART_PATTERN)):
                raise ValueError(
                    f"{self.out_dir} holds scores but no {MANIFEST}, so nothing says which run "
                    "they are of; choose another folder"
                )
            # Of two processes that start at once, one must find the other's and compare.
            text = json.dumps(self.manifest, indent=2, sort_keys=True) + "\n"
            publish_first(path, lambda temporary: temporary.write_text(text))
        try:
            found = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON ({error}); choose another folder") from None
        difference = differences(found, self.manifest)
        if difference:
            raise ValueError(
                f"{self.out_dir} holds the scores of another run ({difference}); choose another "
                "folder, or delete this one"
            )

    def done(self, shard: Shard) -> bool:
        """Tell whether a shard's file is there and whole; a damaged one is done again."""
        if not shard.path.exists():
            return False
        pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
        try:
            return bool(parquet.read_metadata(shard.path).num_rows == len(shard))
        except (pa.ArrowException, OSError):
            return False

    def pending(self) -> Iterator[Shard]:
        """Give the shards that are not done, in order; each is looked at when its turn comes."""
        return (shard for shard in self.shards if not self.done(shard))

    def rows_done(self) -> int:
        """Count the rows of the shards that are done."""
        return sum(len(shard) for shard in self.shards if self.done(shard))

    def work(self) -> Generator[Shard]:
        """Give this process's share of the shards that are not done, until all are done.

        Each comes leased to this process until it is committed. Shards come in a row as far as
        other processes leave them, so that reading goes on where it was; beside others, this
        process begins in the middle of what is left. At the end it waits for the shards that
        others are working on, and takes over those of processes that died.
        """
        left = {shard.index: shard for shard in self.pending()}
        last = -1
        with Leases() as self._leases:
            while left:
                order, half = sorted(left), len(left) // 2
                following = bisect.bisect_right(order, last)
                for index in [*order[following : following + 1], *order[half:], *order[:half]]:
                    shard = left[index]
                    if not self._leases.take(shard.lease):
                        continue
                    del left[index]
                    if self.done(shard):
                        self._leases.release(shard.lease)
                    else:
                        last = index
                        yield shard
                    break
                else:
                    time.sleep(_POLL_SECONDS)
                    left = {i: shard for i, shard in left.items() if not self.done(shard)}

    def commit(self, shard: Shard, table: ScoreTable) -> None:
        """Write a shard's scores, all or nothing, and give back its lease.

        Raises:
            ValueError: the table does not have the shard's number of rows.
            OSError: the disk is full or the folder cannot be written; no part is left behind.
        """
        if len(table) != len(shard):
            raise ValueError(
                f"{shard.path.name} must hold {len(shard)} rows, got a table of {len(table)}"
            )
        with aside(shard.path) as temporary:
            table.write(temporary)
            try:
                flush(temporary)
                temporary.replace(shard.path)
            except FileNotFoundError:
                # Another process finished the run and cleared away; then this shard is done.
                if not self.done(shard):
                    raise
        flush(self.out_dir)
        if self._leases is not None:
            self._leases.release(shard.lease)

    def table(self) -> ScoreTable:
        """Open the scores of the finished run, and clear away what killed processes left.

        Raises:
            ValueError: some shards are not done.
        """
        table = ScoreTable.read(self.out_dir)
        for pattern in ("*.????????????.tmp", "part-*.lease"):
            for leftover in self.out_dir.glob(pattern):
                leftover.unlink(missing_ok=True)
        return table
