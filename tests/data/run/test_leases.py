from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

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


ODD = {
    "empty": ("", "is empty"),
    "cut short": ('{"host": "a', "is damaged"),
    "list": ("[1, 2]", "is damaged"),
    "digits": (f'{{"host": "a", "pid": {"9" * 401}}}', "is damaged"),
    "deep": ("[" * 100_000, "is damaged"),
    "text": ('{"host": "a", "pid": "12"}', "names no process"),
    "negative": (f'{{"host": "{socket.gethostname()}", "pid": -1}}', "names no process"),
    "large": (f'{{"host": "{socket.gethostname()}", "pid": {1 << 40}}}', "names no process"),
    "other": ("{}", "names no process"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_lease_with_odd_content_is_told_and_taken_over_after_a_while(tmp_path, kind):
    path = tmp_path / "a.lease"
    content, what = ODD[kind]
    path.write_text(content)
    with Leases(stale_after=0.2) as leases:
        assert not leases.take(path)
        told = leases.waiting_for(path)
        assert re.fullmatch(f"its lease {what}; it is taken over in 0 s unless that changes", told)
        time.sleep(0.3)
        assert leases.take(path)


def test_whom_a_process_waits_for_and_for_how_long(tmp_path):
    path = tmp_path / "a.lease"
    with Leases() as leases, Leases() as other:
        assert leases.waiting_for(path) == ""
        owned_by(path, "elsewhere", 1)
        assert not leases.take(path)
        assert leases.waiting_for(path) == (
            "process 1 of elsewhere works on it; it is taken over after 60 s without a sign of life"
        )
        path.unlink()
        assert other.take(path)
        assert leases.waiting_for(path) == f"process {os.getpid()} of this machine works on it"


def test_a_lease_that_another_process_took_over_is_not_given_back(tmp_path):
    path = tmp_path / "a.lease"
    with Leases() as first, Leases() as second:
        assert first.take(path)
        path.unlink()
        assert second.take(path)
        first.release(path)
        assert path.exists()
    assert not path.exists()


def test_a_lease_that_this_process_could_not_give_back_is_free_to_it(tmp_path, monkeypatch):
    """As in a notebook, whose disk failed a moment ago."""
    path = tmp_path / "a.lease"

    def failing(self, **options):
        raise OSError(5, "Input/output error")

    first = Leases()
    first.__enter__()
    assert first.take(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing)
        with pytest.raises(OSError, match="Input"):
            first.__exit__(None, None, None)
    assert path.exists()
    with Leases() as second:
        assert second.take(path)


def test_no_lease_is_left_where_it_cannot_be_written(tmp_path, monkeypatch):
    def full(self, *args, **options):
        self.touch()
        raise OSError(28, "No space left on device")

    with Leases() as leases, monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            leases.take(tmp_path / "a.lease")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("now", [0.0, 4e9])
def test_a_clock_that_is_off_takes_no_lease_away(tmp_path, monkeypatch, now):
    """Decades behind or ahead: what counts is that a lease is renewed, not by which date."""
    path = tmp_path / "a.lease"
    owned_by(path, "elsewhere", 1)
    monkeypatch.setattr(time, "time", lambda: now)
    os.utime(path, (4e9 - now, 4e9 - now))
    with Leases(stale_after=0.3) as leases:
        for beat in range(8):
            assert not leases.take(path)
            os.utime(path, (1e9 - beat, 1e9 - beat))  # a clock that runs backwards
            time.sleep(0.06)
        assert not leases.take(path)
        time.sleep(0.4)
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
