"""Options of `lc-engine bench`, and the measurement that they stand for."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from lc_engine.cli.choices import LabelKind
from lc_engine.cli.command import in_data, in_model, in_path, in_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.bench.ways import Job

# Not for a language model, nor without --model and --data.
_OF_OTHERS = (
    "labels",
    "feature_column",
    "label_column",
    "label_kind",
    "loss",
    "checkpoint",
    "image_size",
)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, on which rows."""

    model: Annotated[
        str | None, in_model(help="As `score` takes it.", show_default="the demo's")
    ] = None
    checkpoint: Annotated[Path | None, in_model(help="As in `score`.")] = None
    image_size: Annotated[int | None, in_model(min=1, help="As in `score`.")] = None
    loss: Annotated[str | None, in_model(help="As in `score`.", show_default="class means")] = None
    language: Annotated[
        bool, in_model("--language", help="Take SmolLM2-135M and real conversations.")
    ] = False
    data: Annotated[
        Path | None, in_data(help="As `score` takes them.", show_default="the demo's")
    ] = None
    labels: Annotated[Path | None, in_data(help="As in `score`.")] = None
    feature_column: Annotated[str | None, in_data(help="As in `score`.")] = None
    label_column: Annotated[str | None, in_data(help="As in `score`.")] = None
    label_kind: Annotated[
        LabelKind | None,
        in_data(help="As in `score`; soft and none take the model's classifier."),
    ] = None
    rows: Annotated[
        int | None,
        in_data(
            min=2,
            help="Rows that every way scores.",
            show_default="128; for a head 4,096, for texts 512, for a language model 32",
        ),
    ] = None
    path: Annotated[
        str | None,
        in_path(
            help="As in `score`.",
            show_default="gauss:8; of a head geometric:50:0.02; of a language model "
            "gauss:8:0.7:1.0",
        ),
    ] = None
    keep: Annotated[float, in_run(help="Fraction of the rows whose choice is compared.")] = 0.1
    rounds: Annotated[int, in_run(min=1, help="Turns of every way; medians are reported.")] = 3
    out: Annotated[Path, in_run(help="JSON file of all that was measured.")] = Path("bench.json")

    def run(self, say: Callable[[str], None]) -> str:
        """Measure, write the JSON, and return the table.

        Args:
            say: called with a sentence before every step.

        Raises:
            DisagreementError: the engine's scores are not those of the naive loop.
            ValueError: an argument or a file that does not fit.
            FileNotFoundError: a file that is not there.
        """
        if (self.model is None) != (self.data is None):
            raise ValueError("--model and --data go together; without both, the demo's are taken")
        if not 0 < self.keep <= 1:
            raise ValueError(f"--keep must lie in (0, 1], got {self.keep}")
        from lc_engine._util.atomic_write import atomic_write_text
        from lc_engine.bench.machine import measure_machine
        from lc_engine.bench.measure import measure
        from lc_engine.bench.report import as_json, as_text

        with tempfile.TemporaryDirectory(prefix="lc-engine-bench-") as folder:
            jobs = self.jobs(Path(folder), say)
            outcomes = [measure(job, rounds=self.rounds, keep=self.keep, say=say) for job in jobs]
        say("measuring this machine's peak")
        machine, command = measure_machine(), self.command()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self.out, as_json(outcomes, machine, command))
        return as_text(outcomes, machine, command)

    def command(self) -> str:
        """Return the command line that does the same again."""
        words = ["lc-engine", "bench"]
        for field in fields(BenchOptions):
            value, option = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option] * value
            elif value is not None:
                words += [option, str(value)]
        return shlex.join(words)

    def jobs(self, folder: Path, say: Callable[[str], None]) -> list[Job]:
        """Return what is to be measured; `folder` is for the demo's data."""
        from lc_engine.bench import jobs
        from lc_engine.cli.score_options import named_function
        from lc_engine.heads.loss import Loss
        from lc_engine.language.model import is_language_model

        if self.model is None or self.data is None:
            if self.language:
                self._refuse(_OF_OTHERS, "does not go with a language model")
                return [jobs.language_demo_job(folder, self.path, self.rows, say)]
            self._refuse((*_OF_OTHERS, "path"), "needs --model and --data")
            return jobs.demo_jobs(folder, self.rows, say)
        if self.language:
            raise ValueError("--language takes the demo's model and data: leave out --model")
        if is_language_model(self.model):
            self._refuse(_OF_OTHERS, "does not go with a language model")
            return [jobs.own_language_job(self.model, self.data, path=self.path, rows=self.rows)]
        if self.loss is not None and self.label_kind is not None:
            raise ValueError("--loss takes the place of --label-kind: give one")
        head: Loss | Literal["soft", "none"] | None = None
        if self.loss is not None:
            head = Loss(named_function(self.loss))
        elif self.label_kind != "class":
            head = self.label_kind
        return [
            jobs.own_job(
                self.model,
                self.data,
                head=head,
                path=self.path,
                rows=self.rows,
                checkpoint=None if self.checkpoint is None else str(self.checkpoint),
                image_size=self.image_size,
                labels=self.labels,
                feature_column=self.feature_column,
                label_column=self.label_column,
            )
        ]

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} {reason}")
