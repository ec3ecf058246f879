"""A system whose n-th call on a file below a folder fails, for Python, NumPy and Arrow alike.

    LD_PRELOAD=… python failing_system.py KIND FOLDER STRIDE

runs a small job again and again, one call failing in each run, and prints what came of it as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
# What a command line reports in one line.
CLEAN = (OSError, ValueError, MemoryError)


def built(folder: Path) -> Path:
    """Compile the library to preload."""
    library = folder / "failing_system.so"
    source = Path(__file__).with_suffix(".c")
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def tried(kind: str, folder: Path, stride: int) -> dict[str, Any]:
    """Let every `stride`-th call of a job on this kind of data fail, and count the outcomes."""
    command = [sys.executable, __file__, kind, str(folder), str(stride)]
    environment = os.environ | {
        "LD_PRELOAD": str(built(folder)),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=3600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _main(kind: str, folder: Path, stride: int) -> None:
    from helpers.small_job import contents, finished, run, write
    from lc_engine.data import faults

    faults.PAUSES = (0.0, 0.0, 0.0)
    system = ctypes.CDLL(os.environ["LD_PRELOAD"])
    below = folder / "here"
    data, out = below / "data", below / "out"
    data.mkdir(parents=True)
    write(kind, data)
    run(kind, data, below / "first")  # imports what is imported when first needed
    shutil.rmtree(below / "first")
    system.failing_system_arm(str(below).encode(), 0, 0, 0)
    run(kind, data, out)
    calls = system.failing_system_disarm()
    want = contents(out)
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in range(1, calls + 1, stride):
        for error in ERRORS:
            for goes_on in (0, 1):
                shutil.rmtree(out, ignore_errors=True)
                system.failing_system_arm(str(below).encode(), number, error, goes_on)
                try:
                    run(kind, data, out)
                    outcome = "undisturbed"
                except CLEAN as caught:
                    outcome = "error" if str(caught) else "an error without a text"
                except BaseException as caught:
                    outcome = repr(caught)
                finally:
                    system.failing_system_disarm()
                if outcome == "undisturbed" and contents(out) != want:
                    outcome = "another table"
                early = finished(out)
                if early is not None and early != finished_of(want, out, folder):
                    outcome = "a wrong table"
                run(kind, data, out)
                if contents(out) != want:
                    outcome += ", then another table"
                outcomes[outcome] += 1
                if outcome not in ("undisturbed", "error"):
                    wrong.append(f"call {number}, {errno.errorcode[error]}, {goes_on}: {outcome}")
    print(json.dumps({"calls": calls, "outcomes": outcomes, "wrong": wrong}))


def finished_of(want: dict[str, bytes], out: Path, folder: Path) -> Any:
    """Return the table of the undisturbed run."""
    from helpers.small_job import finished

    copy = folder / "undisturbed"
    if not copy.exists():
        copy.mkdir()
        for name, content in want.items():
            (copy / name).write_bytes(content)
    return finished(copy)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
