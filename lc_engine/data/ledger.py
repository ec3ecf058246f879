"""The ledger of a run: which shards are done, so that a killed run continues where it was.

A shard is written aside, flushed to the disk and renamed, so its file is either whole or not there.
The manifest says what the scores depend on; another run is refused, never mixed in.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine.data.differences import differences
from lc_engine.data.table import PART_PATTERN, ScoreTable
from lc_engine.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
MANIFEST = "manifest.json"


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


class Ledger:
    """An output folder that holds exactly one run, cut in shards with deterministic names.

    Several processes may work in one folder: a shard that two of them do is the same file.

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
            with _aside(path) as temporary:
                temporary.write_text(json.dumps(self.manifest, indent=2, sort_keys=True) + "\n")
                _flush(temporary)
                # A link, not a rename: of two processes that start at once, one must find the
                # other's manifest and compare.
                with suppress(FileExistsError):
                    path.hardlink_to(temporary)
            _flush(self.out_dir)
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

    def commit(self, shard: Shard, table: ScoreTable) -> None:
        """Write a shard's scores, all or nothing.

        Raises:
            ValueError: the table does not have the shard's number of rows.
            OSError: the disk is full or the folder cannot be written; no part is left behind.
        """
        if len(table) != len(shard):
            raise ValueError(
                f"{shard.path.name} must hold {len(shard)} rows, got a table of {len(table)}"
            )
        with _aside(shard.path) as temporary:
            table.write(temporary)
            try:
                _flush(temporary)
                temporary.replace(shard.path)
            except FileNotFoundError:
                # Another process finished the run and cleared away; then this shard is done.
                if not self.done(shard):
                    raise
        _flush(self.out_dir)

    def table(self) -> ScoreTable:
        """Read the scores of the finished run, and clear away what killed processes left.

        Raises:
            ValueError: some shards are not done.
        """
        table = ScoreTable.read(self.out_dir)
        for leftover in self.out_dir.glob("*.????????????.tmp"):
            leftover.unlink(missing_ok=True)
        return table


def write_aside(path: Path, text: str) -> None:
    """Write a small text file, all or nothing, in place of what was there."""
    with _aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        _flush(temporary)
        temporary.replace(path)
    _flush(path.parent)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Give a name beside `path` that no other process uses, gone at the end."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and commits names on its own
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
