"""Leases: which process works on which shard, where several share an output folder.

A lease is a small file beside the shard, created exclusively and touched while its process lives.
Leases save work; correctness does not depend on them. If two processes score one shard after all
(a lease was taken over from a process that was only slow), both write the same file.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

STALE_SECONDS = 60.0


class Leases:
    """The leases that this process holds; leaving the context releases them.

    Args:
        stale_after: seconds without a heartbeat after which another process's lease is taken over.
            The lease of a dead process of this machine is taken over at once.
    """

    def __init__(self, stale_after: float = STALE_SECONDS) -> None:
        self._stale_after = stale_after
        self._held: set[Path] = set()
        # Modification time of other processes' leases, and when this process first saw it, by its
        # own clock: clocks of two machines are not compared.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="lc-leases", daemon=True)

    def __enter__(self) -> Leases:
        self._heartbeat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._heartbeat.join()
        for path in list(self._held):
            self.release(path)

    def take(self, path: Path) -> bool:
        """Return whether the lease at `path` could be taken: free, or its holder is dead."""
        if not self._create(path):
            if not self._abandoned(path):
                return False
            # Of several processes that get here, the one whose rename succeeds continues.
            stale = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
            with suppress(FileNotFoundError):
                path.rename(stale)
                stale.unlink()
            if not self._create(path):
                return False
        with self._lock:
            self._held.add(path)
        return True

    def release(self, path: Path) -> None:
        """Release a lease."""
        with self._lock:
            self._held.discard(path)
        path.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        return True

    def _abandoned(self, path: Path) -> bool:
        try:
            changed, text = path.stat().st_mtime_ns, path.read_text()
        except FileNotFoundError:
            return True  # released just now
        now = time.monotonic()
        if self._seen.get(path, (None, 0.0))[0] != changed:
            self._seen[path] = (changed, now)
        return _holder_is_dead(text) or now - self._seen[path][1] > self._stale_after

    def _beat(self) -> None:
        while not self._closed.wait(self._stale_after / 6):
            with self._lock:
                held = list(self._held)
            for path in held:
                with suppress(FileNotFoundError):
                    os.utime(path)


def _holder_is_dead(text: str) -> bool:
    """Return whether a lease's process ran on this machine and has ended."""
    try:
        holder = json.loads(text)
    except json.JSONDecodeError:
        return False  # being written, or its writer was killed: the timeout decides
    if holder["host"] != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # alive, of another user
    return False
