"""What a command was asked to do, resolved: it can be run, and written down beside its result."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from lc_engine._util.extras import require
from lc_engine._util.ordered_map import default_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.data.batch import Source
    from lc_engine.data.table import ScoreTable
    from lc_engine.language.scorer import CausalLMScorer
    from lc_engine.masking import Masking
    from lc_engine.path.deferred import MeasuredPath
    from lc_engine.path.learning_path import LearningPath
    from lc_engine.scorer.scorer import Scorer
    from lc_engine.scoring.estimate import Plan

CONFIG = "config.json"
# How the name of a model ends that is the checkpoint of a linear head.
HEADS = (".safetensors", ".pt", ".pth", ".bin")


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
    path: str | None
    masking: str
    scope: str | None
    weights: str
    mask_seed: int
    logit: str
    temperature: float
    neighbours: int
    tol: float | None
    form: str | None
    turns: str
    max_tokens: int | None
    ifd: bool
    dtype: str | None
    save_path: bool
    batch_size: int | None
    shard_rows: int | None
    num_workers: int | None
    device: str

    def run(self, progress: Callable[[str, int, int], None]) -> tuple[ScoreTable, dict[str, str]]:
        """Score the data into `out`, and write the configuration there.

        Returns:
            The table, and why each file of the data that was left out was, by its name.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
            MissingExtraError: a package that an option needs is not installed.
        """
        from lc_engine.data.readers.refused import refused_files
        from lc_engine.data.run.atomic_write import write_aside
        from lc_engine.scoring.score import score

        scorer, source = self._opened()
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
        return table, refused_files(source)

    def plan(self) -> Plan:
        """Score some rows, to say what all of them will take; `out` is not touched.

        Raises:
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
            MissingExtraError: a package that an option needs is not installed.
        """
        from lc_engine.scoring.estimate import plan

        scorer, source = self._opened()
        return plan(scorer, source, batch_size=self.batch_size, return_path=self.save_path)

    def _opened(self) -> tuple[Scorer | CausalLMScorer, Source]:
        if not self.data.exists():
            raise FileNotFoundError(f"--data {self.data} does not exist")
        require("pyarrow", "table")
        from lc_engine.data.open import open_source
        from lc_engine.path.deferred import MeasuredPath
        from lc_engine.scorer.scorer import Scorer

        scorer = self._scorer()
        source = open_source(
            self.data,
            labels=self.labels,
            transform=scorer.transform,
            num_workers=self.num_workers,
            feature_column=self.feature_column,
            label_column=self.label_column,
            form=self.form,
        )
        wanted = MeasuredPath.parse(self.path or "")
        if wanted is not None and isinstance(scorer, Scorer):
            scorer = scorer.with_path(self._measured(wanted, scorer, source))
        return scorer, source

    def absolute(self) -> ScoreConfig:
        """Give the same job with paths that hold in any folder."""
        paths = {
            name: value.resolve()
            for name in ("data", "out", "labels", "checkpoint")
            if (value := getattr(self, name)) is not None
        }
        model = Path(self.model)
        return replace(self, **paths, model=str(model.resolve()) if model.exists() else self.model)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values, with the versions that the numbers may depend on."""
        options = {
            name: str(value) if isinstance(value, Path) or name == "data" else value
            for name, value in asdict(self).items()
        }
        if self.num_workers is None:
            options["num_workers"] = default_workers()
        versions = {name: version(name) for name in ("lc_engine", "torch", "numpy")}
        return options | {"versions": versions | {"python": platform.python_version()}}

    def _scorer(self) -> Scorer | CausalLMScorer:
        from lc_engine.backbone.early_exits import Exits
        from lc_engine.data.readers.jsonl import SUFFIXES
        from lc_engine.language.model import is_language_model
        from lc_engine.models.load import ModelSpec
        from lc_engine.path.deferred import MeasuredPath
        from lc_engine.path.learning_path import LearningPath
        from lc_engine.scorer.scorer import Scorer

        # A file of texts says what the model is, where its name does not; a linear head's file says
        # that the lines are features.
        texts = self.data.name.endswith((*SUFFIXES, ".json")) and not self.model.endswith(HEADS)
        if is_language_model(self.model) or texts:
            return self._language_scorer()
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        path = None
        exits = self.masking == "exits"
        if exits and self.path is not None:
            raise ValueError("--path: exits bring their own points; leave it out")
        if not exits and MeasuredPath.parse(self.path or "") is None:
            path = LearningPath.parse(self.path or "gauss:8")
        return Scorer(
            ModelSpec(self.model, checkpoint=checkpoint, image_size=self.image_size),
            head=cast("Any", self.head),
            path=path,
            masking=Exits() if exits else self._masking("global"),
            logit=cast("Any", self.logit),
            temperature=self.temperature,
            neighbours=self.neighbours,
            device=check_device(self.device),
            dtype=cast("Any", self.dtype),
            tol=self.tol,
        )

    def _measured(self, wanted: MeasuredPath, scorer: Scorer, source: Source) -> LearningPath:
        """Measure the path, or take the one that the run in `out` was begun with."""
        from lc_engine.data.run.ledger import MANIFEST
        from lc_engine.path.learning_path import LearningPath

        begun = self.out / MANIFEST
        if begun.exists():
            path = LearningPath.from_dict(json.loads(begun.read_text(encoding="utf-8"))["path"])
            if wanted.matches(path):
                return path
        return wanted.measure(scorer, source)

    def _language_scorer(self) -> CausalLMScorer:
        from lc_engine.language.model import LanguageModelSpec
        from lc_engine.language.scorer import CausalLMScorer
        from lc_engine.path.deferred import MeasuredPath
        from lc_engine.path.learning_path import LearningPath

        for name, value in (
            ("checkpoint", self.checkpoint),
            ("image-size", self.image_size),
            ("tol", self.tol),
            (f"path {self.path}", MeasuredPath.parse(self.path or "")),
            ("masking exits", self.masking == "exits" or None),
        ):
            if value is not None:
                raise ValueError(f"--{name} is for models of pictures, not for {self.model}")
        return CausalLMScorer(
            LanguageModelSpec(
                self.model, cast("Any", self.dtype or "auto"), check_device(self.device)
            ),
            path=None if self.path is None else LearningPath.parse(self.path),
            masking=self._masking("layer"),
            turns=cast("Any", self.turns),
            max_tokens=self.max_tokens,
            ifd=self.ifd,
        )

    def _masking(self, scope: str) -> Masking:
        from lc_engine.masking import Masking

        return Masking(
            cast("Any", self.masking),
            scope=cast("Any", self.scope or scope),
            weights=cast("Any", self.weights),
            seed=self.mask_seed,
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
    score: str
    floor: int | None
    cap: int | None
    noise_guard: float
    streamed: bool

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

        table = ScoreTable.read(self.scores)
        kept = self._streamed(table) if self.streamed else self._in_memory(table)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[self.out.suffix](self.out, table, kept)
        return len(kept), table.status_counts()["ok"]

    def _in_memory(self, table: ScoreTable) -> np.ndarray:
        from lc_engine.selection import select

        return select(
            table,
            self.keep,
            self.strategy,
            gamma=self.gamma,
            by=self.by,
            seed=self.seed,
            features=None if self.features is None else _load_features(self.features),
            score=self.score,
            floor=self.floor,
            cap=self.cap,
            noise_guard=self.noise_guard,
        )

    def _streamed(self, table: ScoreTable) -> np.ndarray:
        from lc_engine.selection.streamed import select_streamed

        for name, there in (
            ("features", self.features is not None),
            ("noise-guard", self.noise_guard > 0),
            ("out ….parquet", self.out.suffix == ".parquet"),
        ):
            if there:
                raise ValueError(f"--{name} needs all rows in memory: leave out --streamed")
        return select_streamed(
            table,
            self.keep,
            self.strategy,
            gamma=self.gamma,
            by=self.by,
            seed=self.seed,
            score=self.score,
            floor=self.floor,
            cap=self.cap,
        )


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
    from lc_engine.data.readers.arrays import check_features, open_npy

    return check_features(str(path), open_npy(path))


def _write_npy(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    np.save(path, kept.astype(str) if kept.dtype == object else kept)


def _write_txt(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    path.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")


def _write_parquet(path: Path, table: ScoreTable, kept: np.ndarray) -> None:
    table.only(kept).write(path)


_WRITERS = {".npy": _write_npy, ".parquet": _write_parquet, ".txt": _write_txt}
