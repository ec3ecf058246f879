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
from typing import TYPE_CHECKING, NamedTuple

from lc_engine._util.json_file import read_json_object

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

STALE_SECONDS = 60.0
_LARGEST_PID = 1 << 31
# Tokens of the leases of this process that are in use: a lease with another one was left behind by
# an earlier run in it, whose disk failed.
_IN_USE: set[str] = set()


class _Holder(NamedTuple):
    """The process that a lease names; `odd` says why it names none."""

    host: str = ""
    pid: int = 0
    token: str = ""
    odd: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == socket.gethostname()


class Leases:
    """The leases that this process holds; leaving the context releases them.

    Args:
        stale_after: seconds without a heartbeat after which another process's lease is taken over.
            The lease of a dead process of this machine is taken over at once.
    """

    def __init__(self, stale_after: float = STALE_SECONDS) -> None:
        self._stale_after = stale_after
        self._token = uuid.uuid4().hex
        self._held: set[Path] = set()
        # Modification time of other processes' leases, and when this process first saw it, by its
        # own clock that nobody sets: clocks of two machines are not compared.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="lc-leases", daemon=True)

    def __enter__(self) -> Leases:
        _IN_USE.add(self._token)
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
        _IN_USE.discard(self._token)
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
        """Release a lease; one that another process has taken over stays."""
        with self._lock:
            self._held.discard(path)
        with suppress(FileNotFoundError):
            if _holder(path).token == self._token:
                path.unlink()

    def waiting_for(self, path: Path) -> str:
        """Return who holds a lease that could not be taken, and for how long; "" if it is free."""
        try:
            holder = _holder(path)
        except FileNotFoundError:
            return ""
        seen = self._seen.get(path)
        silent = 0.0 if seen is None else time.monotonic() - seen[1]
        left = f"{max(0.0, self._stale_after - silent):.0f} s"
        if holder.odd:
            return f"its lease {holder.odd}; it is taken over in {left} unless that changes"
        if holder.is_here:
            return f"process {holder.pid} of this machine works on it"
        return (
            f"process {holder.pid} of {holder.host} works on it; it is taken over after {left} "
            "without a sign of life"
        )

    def _create(self, path: Path) -> bool:
        # A link, so that a lease never exists without its content, also where the disk is full.
        written = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        content = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid()}
        try:
            written.write_text(json.dumps(content), encoding="utf-8")
            path.hardlink_to(written)
        except FileExistsError:
            return False
        except FileNotFoundError:  # another process finished the run and cleaned up
            return False
        finally:
            written.unlink(missing_ok=True)
        return True

    def _abandoned(self, path: Path) -> bool:
        try:
            changed, holder = path.stat().st_mtime_ns, _holder(path)
        except FileNotFoundError:
            return True  # released just now
        now = time.monotonic()
        if self._seen.get(path, (None, 0.0))[0] != changed:
            self._seen[path] = (changed, now)
        return _is_dead(holder) or now - self._seen[path][1] > self._stale_after

    def _beat(self) -> None:
        while not self._closed.wait(self._stale_after / 6):
            with self._lock:
                held = list(self._held)
            for path in held:
                with suppress(OSError):  # a lease that is not renewed costs work, nothing else
                    os.utime(path)


def _holder(path: Path) -> _Holder:
    """Return whom a lease names, whatever is in the file."""
    try:
        found = read_json_object(path)
    except ValueError:
        return _Holder(odd="is damaged" if path.stat().st_size else "is empty")
    host, pid, token = found.get("host"), found.get("pid"), found.get("token", "")
    if not isinstance(host, str) or type(pid) is not int or not 0 < pid < _LARGEST_PID:
        return _Holder(odd="names no process")
    return _Holder(host, pid, token if isinstance(token, str) else "")


def _is_dead(holder: _Holder) -> bool:
    """Return whether a lease's process ran on this machine and has ended, or has left it behind."""
    if holder.odd or not holder.is_here or os.name != "posix":
        return False
    if holder.pid == os.getpid():
        return holder.token not in _IN_USE
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # alive, of another user
    return False
