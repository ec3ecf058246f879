"""What a command was asked to do, resolved: it can be run, and written down beside its result."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from lc_engine.data.parallel import default_workers
from lc_engine.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.data.table import ScoreTable
    from lc_engine.scorer import Scorer

CONFIG = "config.json"


@dataclass(frozen=True)
class ScoreConfig:
    """A scoring job. The fields are the options of `lc-engine score`."""

    model: str
    data: Path
    out: Path
    labels: Path | None
    feature_column: str | None
    label_column: str | None
    checkpoint: Path | None
    image_size: int | None
    head: str
    path: str
    masking: str
    scope: str
    weights: str
    mask_seed: int
    logit: str
    temperature: float
    save_path: bool
    batch_size: int
    shard_rows: int
    num_workers: int | None
    device: str

    def run(self, progress: Callable[[str, int, int], None]) -> ScoreTable:
        """Score the data into `out`, and write the configuration there.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
            MissingExtraError: a package that an option needs is not installed.
        """
        if not self.data.exists():
            raise FileNotFoundError(f"--data {self.data} does not exist")
        require("pyarrow", "table")
        from lc_engine.data.ledger import write_aside
        from lc_engine.data.sources import open_source
        from lc_engine.scorer import score

        scorer = self._scorer()
        source = open_source(
            self.data,
            labels=self.labels,
            transform=scorer.transform,
            num_workers=self.num_workers,
            feature_column=self.feature_column,
            label_column=self.label_column,
        )
        table = score(
            scorer,
            source,
            self.out,
            batch_size=self.batch_size,
            shard_rows=self.shard_rows,
            return_path=self.save_path,
            progress=progress,
        )
        # Not before: until the ledger has accepted the folder, it may be another run's.
        resolved = self.to_dict() | {
            "path": scorer.path.to_dict(),
            "masking": scorer.masking.to_dict(),
            "source": source.describe(),
        }
        write_aside(self.out / CONFIG, json.dumps(resolved, indent=2, sort_keys=True) + "\n")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values, with the versions that the numbers may depend on."""
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
        if self.num_workers is None:
            options["num_workers"] = default_workers()
        versions = {name: version(name) for name in ("lc_engine", "torch", "numpy")}
        return options | {"versions": versions | {"python": platform.python_version()}}

    def _scorer(self) -> Scorer:
        from lc_engine.masking import Masking
        from lc_engine.models import ModelSpec
        from lc_engine.path import LearningPath
        from lc_engine.scorer import Scorer

        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        return Scorer(
            ModelSpec(self.model, checkpoint=checkpoint, image_size=self.image_size),
            head=cast("Any", self.head),
            path=LearningPath.parse(self.path),
            masking=Masking(
                cast("Any", self.masking),
                scope=cast("Any", self.scope),
                weights=cast("Any", self.weights),
                seed=self.mask_seed,
            ),
            logit=cast("Any", self.logit),
            temperature=self.temperature,
            device=check_device(self.device),
        )


@dataclass(frozen=True)
class SelectConfig:
    """A selection. The fields are the options of `lc-engine select`."""

    scores: Path
    keep: int | float
    out: Path
    strategy: str
    gamma: float | Literal["auto"]
    by: str | None
    features: Path | None
    seed: int

    def run(self) -> tuple[int, int]:
        """Write the subset.

        Returns:
            Rows kept, and rows that there were to choose from.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
        """
        if self.out.suffix not in _WRITERS:
            raise ValueError(f"--out {self.out} must end with {', '.join(_WRITERS)}")
        from lc_engine.data.table import ScoreTable
        from lc_engine.select import select

        table = ScoreTable.read(self.scores)
        kept = select(
            table,
            self.keep,
            self.strategy,
            gamma=self.gamma,
            by=self.by,
            seed=self.seed,
            features=None if self.features is None else _load_features(self.features),
        )
        self.out.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[self.out.suffix](self.out, table, kept)
        return len(kept), table.status_counts()["ok"]


def check_device(name: str) -> str:
    """Return a device's name if this machine has it.

    Raises:
        ValueError: torch does not know the device, or it is not there.
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return name


def _load_features(path: Path) -> np.ndarray:
    from lc_engine.data.arrays import check_features, open_npy

    return check_features(str(path), open_npy(path))


def _write_npy(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    np.save(path, kept.astype(str) if kept.dtype == object else kept)


def _write_txt(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    path.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _write_parquet(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    table.only(kept).write(path)


_WRITERS = {".npy": _write_npy, ".parquet": _write_parquet, ".txt": _write_txt}
