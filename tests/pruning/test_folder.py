"""The folder of a pruned data set, whatever stops the process that writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from lc_engine.pruning import folder as folders
from lc_engine.pruning.folder import RESULTS, UNFINISHED, at_work_in, staged

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

# Dies at its n-th change of a name, as by a power cut: nothing is cleaned up.
CHILD = """
import os, signal, sys
from pathlib import Path
left = [int(sys.argv[3])]
def dying(function):
    def call(*given, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **options)
    return call
for name in ("rename", "replace", "unlink", "mkdir", "rmdir"):
    setattr(Path, name, dying(getattr(Path, name)))
from lc_engine.pruning.folder import at_work_in, staged
sys.path.insert(0, sys.argv[4])
from pruning_content import write
folder, text = Path(sys.argv[1]), sys.argv[2]
with at_work_in(folder), staged(folder) as new:
    write(new, text)
"""
CONTENT = """
import json
from lc_engine.pruning.folder import RESULTS
def write(new, text):
    (new / "data" / "in").mkdir(parents=True)
    (new / "data" / "in" / "row.txt").write_text(text)
    for name in RESULTS[1:-1]:
        if not (text == "second" and name == "report.html"):
            (new / name).write_text(text)
    content = {"versions": {"lc_engine": "0"}, "text": text}
    (new / "selection.json").write_text(json.dumps(content))
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "pruning_content.py").write_text(CONTENT)

    def child(text, step):
        words = [sys.executable, "-c", CHILD, tmp_path / "out", text, step, tmp_path]
        return subprocess.run(list(map(str, words)), check=False).returncode

    return child


def texts(folder):
    """What each result holds, by its name; "" for one that is not there."""
    found = {}
    for name in RESULTS:
        path = folder / name / "in" / "row.txt" if name == "data" else folder / name
        found[name] = path.read_text() if path.exists() else ""
    if found["selection.json"]:
        found["selection.json"] = json.loads(found["selection.json"])["text"]
    return found


def check_whole(folder, text):
    expected = dict.fromkeys(RESULTS, text)
    if text == "second":
        expected["report.html"] = ""
    assert texts(folder) == expected


def test_a_folder_is_whole_or_says_that_it_is_not_at_every_step(run, tmp_path):
    out = tmp_path / "out"
    for text, before in (("first", None), ("second", "first")):
        step = 0
        while run(text, step) != 0:
            step += 1
            if out.exists() and not (out / UNFINISHED).exists() and any(out.iterdir()):
                done = texts(out)["selection.json"]
                if done:
                    check_whole(out, done)
                else:
                    assert all(
                        path.name.startswith((".lease", UNFINISHED)) for path in out.iterdir()
                    )
            if before and run(before, 999) == 0:  # so that every step begins from a whole folder
                check_whole(out, before)
        assert step > 10
        check_whole(out, text)
        assert sorted(path.name for path in out.iterdir()) == sorted(
            name for name, content in texts(out).items() if content
        )


def test_an_error_leaves_the_earlier_results(tmp_path):
    (tmp_path / "selection.json").write_text('{"versions": {"lc_engine": "0"}}')
    (tmp_path / "data").mkdir()

    def fail():
        with at_work_in(tmp_path), staged(tmp_path) as new:
            (new / "data").mkdir()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert {path.name for path in tmp_path.iterdir()} == {"selection.json", "data"}


def test_a_second_process_is_refused(tmp_path):
    second = at_work_in(tmp_path)
    with at_work_in(tmp_path), pytest.raises(ValueError, match="another process is at work"):
        second.__enter__()


def test_a_first_run_that_fails_says_so(tmp_path):
    out = tmp_path / "out"

    def fail():
        with at_work_in(out):
            (out / "scores").mkdir()
            (out / "scores" / "part").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert {path.name for path in out.iterdir()} == {"scores", UNFINISHED}
    assert "same command continues" in (tmp_path / "out" / UNFINISHED).read_text()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"), at_work_in(tmp_path / "file"):
        pass


def test_a_folder_that_a_failed_run_made_and_left_empty_goes_again(tmp_path):
    out = tmp_path / "out"

    def fail():
        with at_work_in(out):
            assert (out / UNFINISHED).exists()
            (out / "scores").mkdir(exist_ok=True)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not out.exists()
    out.mkdir()  # someone else's stays, as it was
    with pytest.raises(RuntimeError):
        fail()
    assert list(out.iterdir()) == []
    (out / "notes.txt").touch()
    with pytest.raises(RuntimeError):
        fail()
    assert {path.name for path in out.iterdir()} == {"notes.txt", UNFINISHED}


def test_a_result_list_ends_with_what_makes_it_whole():
    assert folders.RESULTS[0] == "data"
    assert folders.RESULTS[-1] == "selection.json"


RUN = """
import sys
from lc_engine.cli.main import run
print("ready", flush=True)
sys.exit(run(sys.argv[1:]))
"""


def test_a_prune_that_is_killed_continues_to_the_same_result(tmp_path):
    import numpy as np
    import torch
    from safetensors.torch import save_file

    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x[:, :5].argmax(1))
    head = {"fc.weight": torch.eye(5, 16), "fc.bias": torch.zeros(5)}
    save_file(head, tmp_path / "head.safetensors")
    options = [
        f"--model={tmp_path / 'head.safetensors'}",
        f"--data={tmp_path / 'x.npy'}",
        f"--labels={tmp_path / 'y.npy'}",
        "--keep=0.1",
        "--strategy=herding",
        "--shard-rows=100",
    ]

    def child(out):
        words = [sys.executable, "-c", RUN, "prune", *options, f"--out={tmp_path / out}"]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    with child("whole") as process:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.communicate()
        seconds = time.monotonic() - began
        assert process.returncode == 0
    for part in (0.5, 0.85):
        with child("out") as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(part * seconds)
            process.kill()
            process.communicate()
        out = tmp_path / "out"
        finished = (out / "selection.json").exists() and not (out / UNFINISHED).exists()
        assert finished or not out.exists() or (out / UNFINISHED).exists() or not any(out.iterdir())
    with child("out") as process:
        process.communicate()
        assert process.returncode == 0
    for name in ("data/x.npy", "data/y.npy", "positions.npy", "suspicious.csv", "rows.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / UNFINISHED).exists()
