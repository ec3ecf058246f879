"""A job of any kind through the command line: killed, continued, shared, planned, pruned, shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import lc_engine as lc
from helpers.feature_run import contents
from lc_engine.cli import main as cli

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_RUN = "import sys; from lc_engine.cli import main; sys.exit(main.run(sys.argv[1:]))"


def start(arguments: Sequence[str], *modules: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own, which may import from some folders."""
    paths = [*map(str, modules), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def whole_job(
    folder: Path, job: Sequence[str], capsys: Any, *modules: Path, code: int = 0
) -> lc.ScoreTable:
    """Run a job in every way, and return its scores.

    Args:
        folder: an empty one.
        job: model and data, as options of `score`.
        capsys: of pytest.
        *modules: folders that processes import from.
        code: that `score` ends with.
    """
    cut = ("--batch-size", "4", "--shard-rows", "4")
    plain = [*job, *cut]
    assert cli.run(["score", *plain, "--out", str(folder / "plain")]) == code
    table = lc.ScoreTable.read(folder / "plain")
    parts = len(list((folder / "plain").glob("part-*")))
    assert parts > 2
    # Killed after its first part, continued by two processes at once.
    out = folder / "killed"
    with start(["score", *plain, "--out", str(out)], *modules) as process:
        while not list(out.glob("part-*")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert len(list(out.glob("part-*"))) < parts, "it ended before it was killed"
    together = [start(["score", *plain, "--out", str(out)], *modules) for _ in range(2)]
    assert [process.communicate()[0] and process.returncode for process in together] == [code] * 2
    own = {name for name in contents(out) if name.startswith("part-")}
    for name in own:
        assert contents(out)[name] == contents(folder / "plain")[name]
    capsys.readouterr()
    assert cli.run(["plan", *job, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == len(table)
    kept = folder / "kept"
    assert cli.run(["prune", *job, "--keep", "0.5", "--out", str(kept)]) == code
    positions = np.load(kept / "positions.npy")
    assert 0 < len(positions) < len(table)
    assert list((kept / "data").iterdir())
    page = folder / "page.html"
    assert cli.run(["report", str(folder / "plain"), "--out", str(page)]) == 0
    assert "<html" in page.read_text()[:2000]
    return table
