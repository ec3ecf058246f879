"""Scoring on Ray: a worker killed, a node taken away, a folder begun elsewhere."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lc_engine.cli import main as cli
from lc_engine.cli.ray import score_on_ray

ray = pytest.importorskip("ray", reason="ray is not installed (extra ray)")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

ROWS, WIDTH, CLASSES = 900, 8, 5


@pytest.fixture(scope="module")
def cluster():
    """A head node without processors, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    memory = 100 * 1024 * 1024
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False},
    )
    nodes = [made.add_node(num_cpus=1, object_store_memory=memory) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def job(tmp_path):
    """A feature set and its options, ready to be scored into a folder of its own."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((ROWS, WIDTH)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, CLASSES, ROWS))
    weight = torch.from_numpy(rng.standard_normal((CLASSES, WIDTH)).astype(np.float32))
    save_file({"weight": weight, "bias": torch.zeros(CLASSES)}, tmp_path / "head.safetensors")

    def command(out, *more):
        return cli.run(
            [
                *("score", "--model", str(tmp_path / "head.safetensors"), "--shard-rows", "1"),
                *("--data", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")),
                *("--out", str(tmp_path / out), *more),
            ]
        )

    return tmp_path, command


def parts(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def workers_at(out):
    """Processes that hold a lease."""
    found = set()
    for lease in out.glob("part-*.lease"):
        try:
            found.add(json.loads(lease.read_text())["pid"])
        except (OSError, ValueError):
            continue
    return found


def test_a_worker_is_killed_and_a_node_taken_away(cluster, job):
    made, nodes = cluster
    folder, command = job
    assert command("undisturbed") == 0
    out, codes = folder / "out", []
    thread = threading.Thread(
        target=lambda: codes.append(command("out", "--ray", "--num-workers", "2"))
    )
    thread.start()
    until = time.monotonic() + 120
    seen = set()
    while len(seen) < 2:
        assert time.monotonic() < until, "the workers never shared the folder"
        seen |= workers_at(out)
        time.sleep(0.01)
    os.kill(min(seen), signal.SIGKILL)
    made.remove_node(nodes.pop())
    thread.join()
    assert codes == [0]
    assert parts(out) == parts(folder / "undisturbed")


def test_a_folder_begun_on_one_machine_goes_on_here(cluster, job):
    folder, command = job
    assert command("out") == 0
    whole = parts(folder / "out")
    for name in sorted(whole)[100:]:
        (folder / "out" / name).unlink()
    kept = {name: (folder / "out" / name).stat().st_mtime_ns for name in sorted(whole)[:100]}
    assert command("out", "--ray") == 0
    assert parts(folder / "out") == whole
    assert kept == {name: (folder / "out" / name).stat().st_mtime_ns for name in kept}


def test_input_that_does_not_fit_ends_the_job_with_its_words(cluster, job, capsys):
    folder, command = job
    np.save(folder / "y.npy", np.zeros(3, np.int64))
    assert command("out", "--ray") == 2
    assert "must have shape (900,)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        score_on_ray(None, num_workers=0)
    assert command("out", "--address", "auto") == 2
