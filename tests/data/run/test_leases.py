from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from lc_engine.data.run.leases import Leases


def owned_by(path, host, pid):
    path.write_text(json.dumps({"host": host, "pid": pid}))


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "a.lease"
    with Leases() as first, Leases() as second:
        assert first.take(path)
        assert not second.take(path)
        first.release(path)
        assert second.take(path)
        assert not first.take(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="asks the system for a process")
def test_a_dead_process_loses_its_lease_at_once(tmp_path):
    path = tmp_path / "a.lease"
    owned_by(path, socket.gethostname(), dead_pid())
    with Leases() as leases:
        assert leases.take(path)
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", '{"host": "elsewhere", "pid": 1}'])
def test_a_silent_lease_is_taken_over_after_a_while_and_not_before(tmp_path, content):
    path = tmp_path / "a.lease"
    path.write_text(content)
    os.utime(path, (0, 0))  # a clock that is decades behind means nothing
    with Leases(stale_after=0.2) as leases:
        assert not leases.take(path)
        time.sleep(0.3)
        assert leases.take(path)


def test_a_held_lease_shows_that_its_process_lives(tmp_path):
    path = tmp_path / "a.lease"
    with Leases(stale_after=0.3) as holder:
        assert holder.take(path)
        # Seen from another machine: the process cannot be looked up there.
        owned_by(path, "elsewhere", 1)
        with Leases(stale_after=0.3) as other:
            until = time.monotonic() + 0.9
            while time.monotonic() < until:
                assert not other.take(path)
                time.sleep(0.05)


def test_of_many_threads_that_find_a_dead_lease_one_file_remains(tmp_path):
    path = tmp_path / "a.lease"
    owned_by(path, socket.gethostname(), dead_pid())
    taken = []
    with Leases() as leases:

        def run():
            taken.append(leases.take(path))

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert any(taken)
        assert [file.name for file in tmp_path.iterdir()] == ["a.lease"]
