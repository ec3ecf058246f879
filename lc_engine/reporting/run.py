"""The run behind a score table: its folder's manifest and configuration, as facts to read."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine.data.run.ledger import MANIFEST
from lc_engine.data.run.side_files import side_file
from lc_engine.data.table_files import PART_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lc_engine.language.scorer import CausalLMScorer

_CONFIG = "config.json"
# Capacities that a fact lists.
_SHOWN = 12


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        metadata: of the score table.
        manifest: of the run's folder; {} for a table in memory or a single file.
        config: what `lc-engine score` wrote into the folder, likewise.
        seconds: from the manifest to the last part file, or None.
    """

    metadata: Mapping[str, Any]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any], folder: Path | None) -> Run:
        """Read what lies beside the scores; `folder` is None for a table in memory."""
        if folder is None or not folder.is_dir():
            return cls(metadata)
        manifest = side_file(folder, MANIFEST)
        parts = [part.stat().st_mtime for part in folder.glob(PART_PATTERN)]
        seconds = max(parts) - manifest.stat().st_mtime if parts and manifest.exists() else None
        return cls(metadata, _json(manifest), _json(side_file(folder, _CONFIG)), seconds)

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of `lc-engine score`, if it made the run."""
        found: Mapping[str, Any] = self.config.get("options", {})
        return found

    @property
    def is_language(self) -> bool:
        """Whether a language model gave the scores."""
        head = self.metadata.get("head")
        return isinstance(head, dict) and head.get("kind") == "lm"

    @property
    def has_images(self) -> bool:
        """Whether that model reads images too."""
        return self.is_language and "processor" in self.metadata["head"]

    @property
    def text_columns(self) -> list[str]:
        """Columns of the texts that an encoder read; none of other data."""
        return list(self.manifest.get("data", {}).get("text_columns", ()))

    @property
    def reads_records(self) -> bool:
        """Whether the rows are records of texts."""
        return self.is_language or bool(self.text_columns)

    @property
    def opening(self) -> dict[str, Any]:
        """Arguments that open the stored rows of the data; see `pruning.rows.open_stored`."""
        if self.reads_records:
            return {}
        names = ("labels", "feature_column", "label_column")
        kind = "any" if self.options.get("loss") else self.options.get("label_kind", "class")
        return {"label_kind": kind} | {name: self.options.get(name) for name in names}

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, by label."""
        found: list[str] | None = self.manifest.get("data", {}).get("classes")
        return found

    @property
    def form(self) -> str | None:
        """Format of an instruction set."""
        found: str | None = self.manifest.get("data", {}).get("form")
        return found

    @property
    def capacities(self) -> list[float]:
        """Capacities of the path."""
        path = self.metadata.get("path")
        return list(path.get("capacities", [])) if isinstance(path, dict) else []

    def check_scorer(self, scorer: CausalLMScorer | None) -> None:
        """Refuse a scorer of another model than that of the scores.

        Raises:
            ValueError: naming it.
        """
        if scorer is None:
            return
        if not self.is_language:
            raise ValueError("scorer: the scores are not those of a language model: leave it out")
        digest = scorer.describe()["model_digest"]
        if digest != self.metadata.get("model_digest"):
            raise ValueError(
                f"scorer: its model ({digest[:12]}) is not that of the scores "
                f"({str(self.metadata.get('model_digest'))[:12]}): pass the one that gave them"
            )

    def warnings(self) -> Iterator[str]:
        """Yield what the run warned of."""
        if "mask_warning" in self.manifest:
            yield f"Masks: {self.manifest['mask_warning']}."
        for name, reason in self.manifest.get("data", {}).get("refused", {}).items():
            yield f"File left out: {reason if name in reason else f'{name}: {reason}'}."

    def command(self) -> str | None:
        """Return the command line that repeats the run, or None if `lc-engine` did not make it."""
        if not self.options:
            return None
        words = ["lc-engine", "score"]
        first = ("model", "data", "out")
        rest = (name for name in self.options if name not in first)
        for name in (*first, *rest):
            value = self.options.get(name)
            option = "--" + name.replace("_", "-")
            for one in value if isinstance(value, list) else [value]:
                if one is True:
                    words.append(option)
                elif one is not None and one is not False:
                    words += [option, _shown(str(one))]
        return shlex.join(words)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield what the run was, as (name, value)."""
        model = self.metadata.get("model")
        name = model.get("name", model.get("model")) if isinstance(model, dict) else model
        yield "Model", _shown(str(self.options.get("model") or name or "not recorded"))
        data, named = self.manifest.get("data", {}), self.options.get("data")
        named = ", ".join(map(_shown, [named] if isinstance(named, str) else named or ()))
        yield (
            "Data",
            " · ".join(str(part) for part in (named, data.get("kind")) if part) or "not recorded",
        )
        path = self.metadata.get("path")
        if isinstance(path, dict):
            capacities = self.capacities
            plural = "" if len(capacities) == 1 else "s"
            yield "Path", f"{path.get('name', 'path')}, {len(capacities)} sub-model{plural}"
            if capacities:
                yield "Capacities asked, %", _percents(capacities)
            recorded = self.manifest.get("path", {})
            for field, name in (
                ("reached", "Capacities reached, %"),
                ("reached_of_body", "Kept of all matrix weights, %"),
            ):
                if recorded.get(field):
                    yield name, _percents(recorded[field])
        head = self.metadata.get("head")
        if isinstance(head, dict):
            shown = ("kind", "logit", "temperature", "neighbours")
            yield (
                "Head",
                ", ".join(
                    str(head[key]) if key in ("kind", "logit") else f"{key} {head[key]}"
                    for key in shown
                    if key in head
                ),
            )
        masking = self.metadata.get("masking")
        if isinstance(masking, dict):
            yield (
                "Masking",
                ", ".join(
                    str(masking[key]) for key in ("kind", "scope", "weights") if masking.get(key)
                ),
            )
        computed = [self.metadata.get("dtype"), self.config.get("device")]
        yield "Computed in", " on ".join(str(part) for part in computed if part) or "not recorded"
        if self.seconds is not None:
            yield "Time, to the last file", _duration(self.seconds)
        versions = self.config.get("versions", {})
        if versions:
            yield "Versions", ", ".join(f"{key} {value}" for key, value in versions.items())
        for key in ("model_digest", "data_digest"):
            if self.metadata.get(key):
                yield key.replace("_", " ").capitalize(), str(self.metadata[key])


def _shown(location: str) -> str:
    """Return a path below the current folder, also as NAME=PATH, as one would type it there."""
    here = re.escape(f"{Path.cwd()}{os.sep}")
    return re.sub(f"(^|=){here}", r"\1", location)


def _percents(shares: Sequence[float]) -> str:
    more = ", …" if len(shares) > _SHOWN else ""
    return ", ".join(f"{100 * share:.3g}" for share in shares[:_SHOWN]) + more


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}
