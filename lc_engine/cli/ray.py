"""A scoring job on a Ray cluster: workers that share the shards of one output folder.

A worker is the same job as on one machine; the folder's leases say which shard is whose. So the
data do not pass through Ray, a job can be begun on one machine and go on here or the other way
round, and what a worker that died had in hand is done by another one. Data and output folder must
be on a file system that every node sees under the same path.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lc_engine._util.extras import require
from lc_engine.data.table import ScoreTable
from lc_engine.data.table_files import PART_PATTERN

if TYPE_CHECKING:
    from pathlib import Path

    from lc_engine.cli.score_options import ScoreOptions

_SECONDS_BETWEEN_LINES = 10.0

_log = logging.getLogger(__name__)


def score_on_ray(
    config: ScoreOptions,
    *,
    address: str | None = None,
    num_workers: int = 1,
    gpus_per_worker: float = 0.0,
) -> tuple[ScoreTable, dict[str, str]]:
    """Run a scoring job on Ray.

    Args:
        config: the job. With GPUs for its workers its device is "cuda".
        address: of a cluster; None takes `RAY_ADDRESS`, else this machine.
        num_workers: actors, each with one processor; one that dies is started again.
        gpus_per_worker: GPUs of each, which may be a fraction.

    Returns:
        What `ScoreOptions.run` returns.

    Raises:
        ValueError: no worker, or what `ScoreOptions.run` raises.
        RuntimeError: Ray could not run a worker.
        MissingExtraError: Ray is not installed.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    ray = require("ray", "ray")
    if gpus_per_worker > 0:
        config = replace(config, device="cuda")
    config = config.absolute()
    begun = not ray.is_initialized()
    if begun:
        ray.init(address=address, log_to_driver=False)
    workers: list[Any] = []
    try:
        actor = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=gpus_per_worker, max_restarts=-1, max_task_retries=-1
        )
        workers = [actor.remote() for _ in range(num_workers)]
        refused = _first_to_finish(ray, [one.run.remote(config) for one in workers], config.out)
    finally:
        for one in workers:  # those that would still look for a shard
            ray.kill(one)
        if begun:
            ray.shutdown()
    return ScoreTable.read(config.out), refused


class _Worker:
    """One process's share of the job."""

    def run(self, config: ScoreOptions) -> dict[str, str]:
        """Score until all shards are done, by whomever."""
        return config.run()[1]


def _first_to_finish(ray: Any, running: list[Any], out: Path) -> dict[str, str]:
    """Wait for a worker that found all shards done; what ends one by its input ends all."""
    errors = require("ray.exceptions", "ray")
    while running:
        done, _ = ray.wait(running, timeout=_SECONDS_BETWEEN_LINES)
        if not done:
            _log.info("%d parts are done in %s", len(list(out.glob(PART_PATTERN))), out)
            continue
        running.remove(done[0])
        try:
            refused: dict[str, str] = ray.get(done[0])
        except errors.RayTaskError as error:
            if isinstance(error.cause, ValueError | OSError):
                raise error.cause from None
            raise RuntimeError(f"a worker failed: {error.cause!r}") from error
        except errors.RayError as error:
            _log.warning("a worker was lost: %s", error)
        else:
            return refused
    raise RuntimeError("Ray could not keep a worker alive; the same command continues")
