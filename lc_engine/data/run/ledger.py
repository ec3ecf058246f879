"""The ledger of a run: which shards are done, so that a killed run continues where it stopped.

Shards are written atomically: a part file is complete or does not exist. The manifest lists what
the scores depend on; a run with another manifest is refused, so that runs are never mixed.
"""

from __future__ import annotations

import bisect
import json
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine._util.atomic_write import write_once
from lc_engine._util.differences import differences
from lc_engine._util.extras import require
from lc_engine._util.json_file import read_json_object
from lc_engine.data.features import features_path, is_complete
from lc_engine.data.run.leases import Leases
from lc_engine.data.run.side_files import side_file
from lc_engine.data.table import ScoreTable
from lc_engine.data.table_files import PART_PATTERN, is_intact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lc_engine.data.features import FeatureFile

_log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"

# Between two checks of the shards that other processes hold.
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
        """The lease of the process that is working on the shard."""
        return self.path.with_suffix(".lease")


class Ledger:
    """An output folder that holds exactly one run, divided into shards with deterministic names.

    Several processes may work in one folder: leases divide the shards among them. Where two score
    the same shard after all, both write the same file.

    Args:
        out_dir: created if it does not exist.
        manifest: JSON-like fields that the scores depend on (digests of model and data, masking,
            path, head, dtype). Runs with equal manifests write the same files. With a field
            `features`, a shard is done once its features are there too.
        rows: rows of the source.
        shard_rows: rows per shard; the last one may have fewer.
        recorded: further fields of the manifest, which follow from those and are not compared.
        chosen: numbers of the manifest, or "shard_rows", for which a run that was begun may have
            another value, which is taken: they say how the work is cut, and not what is scored.

    Raises:
        ValueError: the folder holds another run (the text names the fields that differ), score
            files without a manifest, or a manifest that is not JSON.
    """

    def __init__(
        self,
        out_dir: str | Path,
        manifest: Mapping[str, Any],
        rows: int,
        shard_rows: int = 65536,
        recorded: Mapping[str, Any] | None = None,
        chosen: Sequence[str] = (),
    ) -> None:
        if rows < 0 or shard_rows < 1:
            raise ValueError(
                f"rows must be at least 0 and shard_rows at least 1, got {rows} and {shard_rows}"
            )
        self.out_dir = Path(out_dir)
        described = {**manifest, "format": FORMAT, "rows": rows, "shard_rows": shard_rows}
        # As read back from a file: JSON turns tuples into lists.
        self.manifest: dict[str, Any] = json.loads(json.dumps(described))
        self._recorded = {} if recorded is None else recorded
        self._chosen = chosen
        self._leases: Leases | None = None
        # Of the files that need not be read again: their size and time of writing.
        self._intact: dict[int, tuple[int, int]] = {}
        self._open()
        shard_rows = self.manifest["shard_rows"]
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

    def _open(self) -> None:
        try:
            self.out_dir.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(f"out: {self.out_dir} is a file, not a folder") from None
        path = side_file(self.out_dir, MANIFEST)
        if not path.exists():
            if any(self.out_dir.glob(PART_PATTERN)):
                raise ValueError(
                    f"{self.out_dir} holds scores but no _{MANIFEST}, so their run is not known; "
                    "choose another folder"
                )
            # Of two processes that start at once, the second must compare with the first's.
            whole = _joined(self.manifest, self._recorded)
            text = json.dumps(whole, indent=2, sort_keys=True) + "\n"
            write_once(path, lambda temporary: temporary.write_text(text))
        remedy = "the run of the scores beside it is not known; choose another folder"
        found = read_json_object(path, remedy)
        for name in self._chosen:
            if type(found.get(name)) is int and found[name] > 0:
                self.manifest[name] = found[name]
            elif name not in found:
                self.manifest.pop(name, None)
        difference = differences(_without(found, self._recorded), self.manifest)
        if difference:
            raise ValueError(
                f"{self.out_dir} holds the scores of another run ({difference}); choose another "
                "folder, or delete this one"
            )

    def done(self, shard: Shard) -> bool:
        """Return whether a shard's file exists and is complete; a damaged one is redone.

        A file that another process wrote is read to its end, once.
        """
        pa, parquet = require("pyarrow", "table"), require("pyarrow.parquet", "table")
        try:
            state = _state(shard.path)
            if self._intact.get(shard.index) == state:
                return True
            rows = parquet.read_metadata(shard.path).num_rows
        except (pa.ArrowException, OSError):
            return False
        if rows != len(shard) or not is_intact(shard.path) or not self.has_features(shard):
            return False
        self._intact[shard.index] = state
        return True

    def has_features(self, shard: Shard) -> bool:
        """Return whether the features of a shard are there, or none are kept."""
        if "features" not in self.manifest:
            return True
        return is_complete(features_path(shard.path), len(shard))

    def pending(self) -> Iterator[Shard]:
        """Return the shards that are not done, in order; each is checked when its turn comes."""
        return (shard for shard in self.shards if not self.done(shard))

    def rows_done(self) -> int:
        """Return the number of rows in finished shards."""
        return sum(len(shard) for shard in self.shards if self.done(shard))

    @contextmanager
    def work(self) -> Iterator[Iterator[Shard]]:
        """Give this process's share of the unfinished shards, until all shards are done.

        Each is leased to this process until it is committed, or until the context ends. Shards are
        consecutive as far as other processes leave them, so that reading continues where it
        stopped; where the next one is taken, this process jumps to the middle of the rest. At the
        end it waits for the shards that others are working on, and takes over those of processes
        that died.
        """
        with Leases() as self._leases:
            yield self._share(self._leases)

    def _share(self, leases: Leases) -> Iterator[Shard]:
        left = {shard.index: shard for shard in self.pending()}
        last = -1
        told: dict[int, str] = {}
        while left:
            order, half = sorted(left), len(left) // 2
            following = bisect.bisect_right(order, last)
            for index in [*order[following : following + 1], *order[half:], *order[:half]]:
                shard = left[index]
                if not leases.take(shard.lease):
                    continue
                del left[index]
                if self.done(shard):
                    leases.release(shard.lease)
                else:
                    last = index
                    yield shard
                break
            else:
                _tell(told, leases, left)
                time.sleep(_POLL_SECONDS)
                left = {i: shard for i, shard in left.items() if not self.done(shard)}

    def commit(self, shard: Shard, table: ScoreTable, features: FeatureFile | None = None) -> None:
        """Write a shard's scores atomically, and release its lease.

        Args:
            shard: it is leased to this process.
            table: its scores.
            features: those of its rows, which take their place before the scores do; None if they
                are there, or none are kept.

        Raises:
            ValueError: the table does not have the shard's number of rows.
            OSError: the disk is full or the folder is not writable; no partial file remains.
        """
        if len(table) != len(shard):
            raise ValueError(
                f"{shard.path.name} must hold {len(shard)} rows, got a table of {len(table)}"
            )
        try:
            if features is not None:
                features.commit()
            table.write(shard.path)
            self._intact[shard.index] = _state(shard.path)
        except FileNotFoundError:
            # Another process finished the run and cleaned up: then this shard is done.
            if not self.done(shard):
                raise
        if self._leases is not None:
            self._leases.release(shard.lease)

    def table(self) -> ScoreTable:
        """Open the scores of the finished run, and delete what killed processes left behind.

        Raises:
            ValueError: some shards are not done.
        """
        table = ScoreTable.read(self.out_dir)
        for pattern in ("*.????????????.tmp", "part-*.lease"):
            for leftover in self.out_dir.glob(pattern):
                leftover.unlink(missing_ok=True)
        return table


def _tell(told: dict[int, str], leases: Leases, left: Mapping[int, Shard]) -> None:
    """Say for whom this process waits, once per shard and holder."""
    for index, shard in left.items():
        holder = leases.waiting_for(shard.lease)
        who = holder.partition(";")[0]
        if holder and told.get(index) != who:
            told[index] = who
            _log.warning("waiting for %s: %s", shard.path.name, holder)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the run in a folder; None if there is none that can be read."""
    try:
        return read_json_object(side_file(folder, MANIFEST))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None  # of a file that is not JSON, `Ledger` says what to do


def _joined(fields: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields and more of them, mappings joined too."""
    inner = {
        name: _joined(fields[name], value)
        for name, value in more.items()
        if isinstance(value, dict) and name in fields
    }
    return {**fields, **more, **inner}


def _without(fields: Any, more: Mapping[str, Any]) -> Any:
    """Return what was joined with the names of `more`, without them."""
    if not isinstance(fields, dict):
        return fields
    return {
        name: _without(value, more[name]) if name in more else value
        for name, value in fields.items()
        if name not in more or isinstance(more[name], dict)
    }


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of the last write."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
