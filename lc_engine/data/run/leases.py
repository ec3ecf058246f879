"""Leases: which process works on which shard, where several share an output folder.

A lease is a small file beside the shard, made so that only one process can make it and touched as
long as that process lives. Leases save work and are not what keeps the scores right: a shard that
two processes do after all (a lease taken over from a process that was only slow) is the same file.
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
    """The leases that this process holds; leaving the context gives them back.

    Args:
        stale_after: seconds without a sign of life after which another process's lease is taken
            over. The lease of a process that is no longer there, on this machine, is taken over at
            once.
    """

    def __init__(self, stale_after: float = STALE_SECONDS) -> None:
        self._stale_after = stale_after
        self._held: set[Path] = set()
        # What other processes' leases looked like when they last changed, and when that was by
        # this process's own clock: clocks of two machines are not compared.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lc-leases", daemon=True)

    def __enter__(self) -> Leases:
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._heart.join()
        for path in list(self._held):
            self.release(path)

    def take(self, path: Path) -> bool:
        """Take the lease at `path` if nobody has it, or nobody who is still at work."""
        if not self._create(path):
            if not self._abandoned(path):
                return False
            # Of several processes that see this, the one whose rename succeeds goes on.
            grave = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
            with suppress(FileNotFoundError):
                path.rename(grave)
                grave.unlink()
            if not self._create(path):
                return False
        with self._lock:
            self._held.add(path)
        return True

    def release(self, path: Path) -> None:
        """Give a lease back."""
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
            return True  # given back this moment
        now = time.monotonic()
        if self._seen.get(path, (None, 0.0))[0] != changed:
            self._seen[path] = (changed, now)
        return _is_of_the_dead(text) or now - self._seen[path][1] > self._stale_after

    def _beat(self) -> None:
        while not self._over.wait(self._stale_after / 6):
            with self._lock:
                held = list(self._held)
            for path in held:
                with suppress(FileNotFoundError):
                    os.utime(path)


def _is_of_the_dead(text: str) -> bool:
    """Tell whether a lease's process ran on this machine and is gone."""
    try:
        owner = json.loads(text)
    except json.JSONDecodeError:
        return False  # being written, or its writer was killed: time will tell
    if owner["host"] != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # alive, another user's
    return False
