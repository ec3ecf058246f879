"""Real processes of `lc-engine prune` that are killed at any moment: whole, or marked."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import tiny_language_model as tiny
from helpers.pruning import names, pictures
from lc_engine.pruning.folder import UNFINISHED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

# Imports once, then forks a process for each line, [arguments, seconds until its end or null], and
# says how it ended.
SERVER = """
import json, os, sys, time
import lc_engine.pruning.prune, lc_engine.reporting.page
import lc_engine.scorer.scorer, lc_engine.language.scorer, timm, pyarrow.parquet
from lc_engine.cli.main import run
for line in sys.stdin:
    arguments, seconds = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os._exit(run(arguments))
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, 9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def prune():
    """Return a function that prunes in a process of its own, and returns how that ended."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # threads do not outlive a fork
    with subprocess.Popen(command, text=True, env=environment, **pipes) as server:

        def run(options, keep, out, killed_after=None):
            words = [*options, "--strategy=easy", "--shard-rows=20", f"--keep={keep}"]
            line = json.dumps([["prune", *words, f"--out={out}"], killed_after])
            server.stdin.write(line + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield run
        server.stdin.close()


def folder_of_images(root):
    pixels, labels = pictures(240)
    for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = root / "data" / "abc"[label] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), root / "test_resnet.safetensors")
    weights = f"--checkpoint={root / 'test_resnet.safetensors'}"
    return ["--model=timm/test_resnet", weights, "--image-size=32", f"--data={root / 'data'}"]


def file_of_json_lines(root):
    root.mkdir()
    rows = tiny.random_rows(np.random.default_rng(0), 120)
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.model().save_pretrained(root / "model")
    tiny.tokenizer().save_pretrained(root / "model")
    return [f"--model={root / 'model'}", "--dtype=float32", f"--data={root / 'rows.jsonl'}"]


def results(out):
    """What a finished folder holds, but for times and places."""
    found = {name: (out / "data" / name).read_bytes() for name in names(out / "data")}
    return found | {
        name: (out / name).read_bytes()
        for name in ("rows.parquet", "positions.npy", "suspicious.csv")
    }


@pytest.mark.parametrize("kind", [folder_of_images, file_of_json_lines])
def test_a_killed_prune_is_whole_or_marked_and_continues(tmp_path, tally, many, prune, kind):
    options = kind(tmp_path / "in")
    whole, seconds = {}, {}
    for keep in (12, 30):  # the second one scores nothing
        began = time.monotonic()
        assert prune(options, keep, tmp_path / "whole") == 0
        seconds[keep] = time.monotonic() - began
        whole[keep] = results(tmp_path / "whole")
    generator = random.Random(0)
    kills = 20 if many else 2
    out = tmp_path / "out"
    for number in range(kills):
        shutil.rmtree(out, ignore_errors=True)
        earlier = number % 2
        if earlier:
            shutil.copytree(tmp_path / "whole", out)
        moment = (number + generator.random()) / kills * seconds[30 if earlier else 12]
        killed = prune(options, 12, out, killed_after=moment) != 0
        fault = f"SIGKILL of `lc-engine prune` of a {kind.__name__.replace('_', ' ')}"
        tally.add(fault, "killed" if killed else "undisturbed")
        if (out / "selection.json").exists() and not (out / UNFINISHED).exists():
            assert results(out) in (whole.values() if killed and earlier else [whole[12]])
        elif out.exists() and not (out / UNFINISHED).exists():
            assert {path.name for path in out.iterdir()} <= {".lease"}
        assert prune(options, 12, out) == 0
        assert results(out) == whole[12]
        assert not (out / UNFINISHED).exists()
