"""The page of a score table: one HTML file that holds everything it needs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.locations import named_locations
from lc_engine.data.table import ScoreTable
from lc_engine.reporting.previews import Preview, column_previews, image_previews, text_previews
from lc_engine.reporting.run import Run
from lc_engine.reporting.subsets import read_subsets
from lc_engine.reporting.survey import NEVER, STD_MAX, Survey, path_confidences, take
from lc_engine.selection.suspicious import find_suspects, to_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

# Rows of the map; beyond them it is a density with a sample of as many rows.
DRAWN = 20_000
PREVIEWS = 2_000
# Of images and texts: keeps the page below 15 MB, whatever they weigh.
PREVIEW_BYTES = 8_000_000
LISTED = 24
SUSPICIOUS = 200
_CLASS_ROWS = 200
_FEATURES = "The data are features: there is no image or text to show."
_OWN = frozenset(("id", "label", "lc", "loss", "lc_std", "path_log_probs", "status", "detail"))


@dataclass(frozen=True)
class Row:
    """A row as a gallery or a table shows it; `point` is its index in the page's data."""

    point: int
    id: str
    label: str | None
    lc: float
    loss: float
    lc_std: float
    preview: Preview | None
    reason: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows that are shown side by side."""

    name: str
    note: str
    rows: Sequence[Row]


def report(
    scores: ScoreTable | str | os.PathLike[str],
    data: Any = None,
    subset: Any = None,
    out: str | os.PathLike[str] = "report.html",
    *,
    title: str | None = None,
    points: int = DRAWN,
    previews: int = PREVIEWS,
    seed: int = 0,
) -> Path:
    """Write one self-contained HTML page about a score table, and its suspicious rows as CSV.

    Args:
        scores: the table, or the file or folder of one.
        data: the data that were scored, for images or texts of rows; None takes those that the
            run's `_config.json` names, if they are still there.
        subset: rows kept, to be shown in all parts of the page: ids, a file that
            `lc-engine select` wrote, a list of files or a mapping of names to either; at most 4.
        out: the HTML file; the CSV is written beside it, as `<stem>.suspicious.csv`.
        title: heading of the page; None takes the name of the scores.
        points: rows that the map draws; of more it draws a sample, over the density of all.
        previews: rows that come with their image or text, those of the galleries first.
        seed: of the sample.

    Returns:
        The path of the page.

    Raises:
        ValueError: data or subset do not belong to the scores.
        FileNotFoundError: a file that is not there.
        MissingExtraError: a package of the extra "report" is not installed.
    """
    plotly, jinja2 = require("plotly.offline", "report"), require("jinja2", "report")
    markup = require("markupsafe", "report").Markup  # the package's own files are not escaped
    folder = None if isinstance(scores, ScoreTable) else Path(scores)
    table = scores if isinstance(scores, ScoreTable) else ScoreTable.read(Path(scores))
    page = _Page(table, Run.of(table.metadata, folder), data, subset, points, previews, seed)
    out = Path(out)
    assets = files("lc_engine.reporting") / "assets"
    script = (assets / "page.js").read_text(encoding="utf-8")
    library = plotly.get_plotlyjs()
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    suspicious = out.with_name(f"{out.stem}.suspicious.csv")
    html = environment.from_string((assets / "page.html").read_text(encoding="utf-8")).render(
        page.context(),
        title=title or (folder.name if folder is not None else "") or "Score table",
        csv_name=suspicious.name,
        style=markup((assets / "page.css").read_text(encoding="utf-8")),
        script=markup(script),
        hashes=" ".join(f"'sha256-{_sha256(text)}'" for text in (script, library)),
        library=_packed(library),
        payload=_packed(json.dumps(page.payload(), separators=(",", ":"), allow_nan=False)),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(suspicious, page.suspicious_csv())
    atomic_write_text(out, html)
    return out


class _Page:
    """What the page shows, worked out once."""

    def __init__(
        self,
        table: ScoreTable,
        run: Run,
        data: Any,
        subset: Any,
        points: int,
        previews: int,
        seed: int,
    ) -> None:
        self.run, self.warnings = run, list[str]()
        self.subsets = read_subsets(subset, table.id_type)
        self.survey = survey = Survey(
            table,
            self.subsets,
            drawn=points,
            listed=LISTED,
            bad=SUSPICIOUS,
            seed=seed,
        )
        self.suspects, self.lc_note = find_suspects(table, SUSPICIOUS), table.lc_note()
        self.rows = len(table)
        self.status = table.status_counts()
        self._check_subsets()
        self.borders = {name: survey.border(i, LISTED // 2) for i, name in enumerate(self.subsets)}
        listed = [survey.easiest, survey.hardest, self.suspects.rows, survey.bad]
        listed += [
            rows for border in self.borders.values() for rows in (border.kept, border.dropped)
        ]
        chosen = np.concatenate(listed)
        self.numbers = np.union1d(chosen, survey.drawn)
        self.taken = taken = take(table, self.numbers)
        self.kept = survey.kept(taken)
        self.ids = [str(value) for value in taken.column("id").to_pylist()]
        self.columns = {
            name: np.asarray(taken.column(name).to_numpy(zero_copy_only=False))
            for name in ("label", "lc", "loss", "lc_std")
        }
        self.ok = np.array(taken.column("status").to_pylist()) == OK
        self.paths = path_confidences(taken) if survey.has_path else None
        self.classes = run.classes
        self.previews = self._previews(data, chosen, table, previews, seed)
        self._warn()

    def _check_subsets(self) -> None:
        for i, (name, ids) in enumerate(self.subsets.items()):
            kept = sum(int(total.kept[i]) for total in self.survey.classes.values())
            if len(ids) and not kept:
                raise ValueError(
                    f"subset {name}: none of its {len(ids):,} ids is a scored row of the table"
                )
            if kept < len(ids):
                self.warnings.append(
                    f"{len(ids) - kept:,} of the {len(ids):,} ids of {name} are not scored rows of "
                    "this table."
                )

    def _previews(
        self, data: Any, chosen: NDArray[np.int64], table: ScoreTable, limit: int, seed: int
    ) -> dict[int, Preview]:
        implied = data is None
        if implied:
            data = self.run.options.get("data")
            if isinstance(data, list):
                data = named_locations(data)
            parts = data.values() if isinstance(data, dict) else [data]
            if not all(one is not None and Path(one).exists() for one in parts):
                self.warnings.append("Images and texts are not shown: the page got no data.")
                return {}
        if isinstance(data, str | os.PathLike) and str(data).endswith((".npy", ".safetensors")):
            self.warnings.append(_FEATURES)
            return {}
        listed = np.unique(chosen)[:limit]
        others = np.setdiff1d(self.numbers, listed)
        more = min(limit - len(listed), len(others))
        drawn = np.random.default_rng(seed).choice(others, more, replace=False)
        rows = np.union1d(listed, drawn)
        try:
            found = self._read_previews(data, rows, len(table))
        except ValueError as error:
            if not implied:
                raise
            self.warnings.append(f"Images and texts are not shown: {error}.")
            return {}
        # A listed row is shown up to three times: in a gallery, in the table and on the map.
        sizes = [(n, 3) for n in listed.tolist()] + [(n, 1) for n in drawn.tolist()]
        total, kept = 0, dict[int, Preview]()
        for number, times in sizes:
            if number in found:
                total += times * found[number].size
                if total > PREVIEW_BYTES:
                    break
                kept[number] = found[number]
        if not found:
            self.warnings.append(_FEATURES)
        elif len(kept) < len(self.numbers):
            self.warnings.append(
                f"{len(kept):,} of the {len(self.numbers):,} rows of the page come with their "
                "image or text."
            )
        return kept

    def _read_previews(
        self, data: Any, rows: NDArray[np.int64], table_rows: int
    ) -> dict[int, Preview]:
        if self.run.is_language:
            return text_previews(data, rows, table_rows=table_rows, form=self.run.form)
        if self.run.text_columns:
            columns = self.run.text_columns
            return column_previews(data, rows, table_rows=table_rows, columns=columns)
        found, classes = image_previews(
            data,
            rows,
            [self.ids[i] for i in np.searchsorted(self.numbers, rows)],
            table_rows=table_rows,
            data_digest=self.run.metadata.get("data_digest"),
            columns={
                name: self.run.options.get(name) for name in ("feature_column", "label_column")
            },
        )
        self.classes = self.classes or classes
        return found

    def _warn(self) -> None:
        bad = self.rows - self.status[OK]
        if bad:
            self.warnings.append(f"{bad:,} of {self.rows:,} rows have no score.")
        if self.lc_note:
            self.warnings.append(f"{self.lc_note}.")
        if not self.survey.has_path:
            self.warnings.append(
                "The scores hold no path: score with --save-path (return_path=True) to see "
                "confidence against capacity."
            )

    @property
    def has_labels(self) -> bool:
        """Whether the rows have classes."""
        return any(label >= 0 for label in self.survey.classes)

    def label(self, number: int) -> str | None:
        """Return the name of a class, None for no label."""
        if number < 0:
            return None
        named = self.classes is not None and number < len(self.classes)
        return self.classes[number] if named and self.classes is not None else str(number)

    def row(self, number: int, reason: str = "") -> Row:
        """Return a row of the page by its number in the table."""
        point = int(np.searchsorted(self.numbers, number))
        lc, loss, lc_std = (float(self.columns[name][point]) for name in ("lc", "loss", "lc_std"))
        label = self.label(int(self.columns["label"][point]))
        preview = self.previews.get(int(number))
        return Row(point, self.ids[point], label, lc, loss, lc_std, preview, reason)

    def _rows(self, numbers: NDArray[np.int64]) -> list[Row]:
        return [self.row(number) for number in numbers.tolist()]

    def suspicious(self) -> list[Row]:
        """Return the suspicious rows, the most suspicious first, with a reason each."""
        reasons = self.suspects.reasons(self.classes)
        return [
            self.row(number, f"{reason}; {self._confidence(number)}")
            for number, reason in zip(self.suspects.rows.tolist(), reasons, strict=True)
        ]

    def _confidence(self, number: int) -> str:
        point = int(np.searchsorted(self.numbers, number))
        label = int(self.columns["label"][point])
        total = self.survey.classes[label]
        if label >= 0:
            usual = f"mean of its class {_percent(total.lc / total.rows)}"
        else:
            usual = f"median of all rows {_percent(self.survey.median_lc)}"
        if self.paths is None:
            return f"mean confidence {_percent(self.columns['lc'][point])}; {usual}"
        path = self.paths[point]
        best = int(np.argmax(path))
        capacities = self.run.capacities
        where = f" at capacity {_percent(capacities[best])}" if best < len(capacities) else ""
        most = f"{_percent(path[best])}{where}; {usual}"
        if path[best] < NEVER:
            return f"below {100 * NEVER:.0f} % under every sub-model: at most {most}"
        return f"confidence from {_percent(path.min())} to {most}"

    def suspicious_csv(self) -> str:
        """Return the list of suspicious rows as CSV, the most suspicious first."""
        rows = self.suspicious()
        columns: dict[str, list[Any]] = {
            "row": self.suspects.rows.tolist(),
            "id": [row.id for row in rows],
            "label": [row.label or "" for row in rows],
            "rank": [f"{rank:.6g}" for rank in self.suspects.rank.tolist()],
        }
        columns |= {
            name: [f"{getattr(row, name):.6g}" for row in rows] for name in ("loss", "lc", "lc_std")
        }
        columns["suggested"] = self.suspects.suggestions(self.classes)
        columns["reason"] = [row.reason for row in rows]
        return to_csv(columns)

    def galleries(self) -> list[Gallery]:
        """Return the galleries."""
        survey = self.survey
        found = [
            Gallery("Easiest", "highest lc", self._rows(survey.easiest)),
            Gallery("Hardest", "lowest lc", self._rows(survey.hardest)),
            Gallery(
                "Most likely mislabelled" if self.has_labels else "Least expected",
                "hardest of their class" if self.has_labels else "hardest",
                self.suspicious()[:LISTED],
            ),
        ]
        for name, border in self.borders.items():
            note = f"nearest to lc {border.lc:.3f}, where the kept share changes most"
            for side, rows in (("kept", border.kept), ("dropped", border.dropped)):
                found.append(Gallery(f"Border of {name}: {side}", note, self._rows(rows)))
        return [gallery for gallery in found if gallery.rows]

    def class_rows(self) -> list[dict[str, Any]]:
        """Return what is known of each class, the hardest first."""
        order = sorted(self.survey.classes.items(), key=lambda item: item[1].lc / item[1].rows)
        return [
            {
                "name": self.label(label) or "no label",
                "rows": total.rows,
                "lc": total.lc / total.rows,
                "lc_std": total.lc_std / total.rows,
                "never": total.never / total.rows,
                "kept": [int(kept) for kept in total.kept],
                "shares": [kept / total.rows for kept in total.kept],
            }
            for label, total in order[:_CLASS_ROWS]
        ]

    def overlaps(self) -> list[dict[str, Any]]:
        """Return the rows of every set of selections, and their share of all scored rows."""
        names = list(self.subsets)
        return [
            {
                "names": [name for i, name in enumerate(names) if code >> i & 1],
                "rows": int(count),
                "share": count / max(1, self.survey.scored),
            }
            for code, count in enumerate(self.survey.overlap)
        ]

    def bad(self) -> list[tuple[str, str, str]]:
        """Return (id, status, detail) of rows without a score."""
        status, detail = (self.taken.column(name) for name in ("status", "detail"))
        points = np.searchsorted(self.numbers, self.survey.bad)
        return [(self.ids[i], status[i].as_py(), detail[i].as_py()) for i in points.tolist()]

    def context(self) -> dict[str, Any]:
        """Return what the template reads."""
        survey = self.survey
        return {
            "facts": list(self.run.facts()),
            "command": self.run.command(),
            "warnings": self.warnings,
            "rows": self.rows,
            "scored": survey.scored,
            "status": self.status,
            "median_lc": survey.median_lc,
            "never": sum(t.never for t in survey.classes.values()) / max(1, survey.scored),
            "has_path": survey.has_path,
            "has_labels": self.has_labels,
            "is_sample": len(survey.drawn) < self.rows,
            "drawn": len(survey.drawn),
            "galleries": self.galleries(),
            "selections": {
                name: sum(int(t.kept[i]) for t in survey.classes.values())
                for i, name in enumerate(self.subsets)
            },
            "overlaps": self.overlaps(),
            "classes": self.class_rows(),
            "more_classes": max(0, len(survey.classes) - _CLASS_ROWS),
            "suspicious": self.suspicious(),
            "bad": self.bad(),
            "budget": self.budget(),
        }

    def budget(self) -> list[dict[str, Any]]:
        """Return the kept shares by group of lc, the hardest group first."""
        edges, rows = self.survey.budget()
        ends = np.cumsum(rows[0]) / max(1, rows[0].sum())
        return [
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "end": float(ends[i]),
                "rows": int(rows[0, i]),
                "shares": [float(kept[i] / max(1, rows[0, i])) for kept in rows[1:]],
            }
            for i in range(rows.shape[1])
        ]

    def payload(self) -> dict[str, Any]:
        """Return what the script reads: a list per column of the page's rows."""
        codes = (self.kept << np.arange(len(self.kept))[:, None]).sum(0)
        drawn = np.isin(self.numbers, self.survey.drawn) & self.ok
        shown = sorted(self.previews)
        at = dict(zip(shown, range(len(shown)), strict=True))
        found: dict[str, Any] = {
            "id": self.ids,
            "label": self.columns["label"].tolist(),
            "kept": codes.astype(int).tolist(),
            "drawn": drawn.astype(int).tolist(),
            "preview": [at.get(number, -1) for number in self.numbers.tolist()],
            "path": None if self.paths is None else [_rounded(p, 3) for p in self.paths],
            "previews": [self.previews[number].to_dict() for number in shown],
            "capacities": self.run.capacities,
            "names": {
                str(n): self.label(n) for n in np.unique(self.columns["label"]).tolist() if n >= 0
            },
            "subsets": list(self.subsets),
            "extra": {
                field.name: _rounded(_floats(self.taken.column(field.name)), 4)
                for field in self.taken.schema
                if field.name not in _OWN and _is_number(field.type)
            },
            "budget": self.budget(),
            "density": None,
        }
        found |= {name: _rounded(self.columns[name], 4) for name in ("lc", "loss", "lc_std")}
        if len(self.survey.drawn) < self.rows:
            found["density"] = {"rows": self.survey.density.tolist(), "std_max": STD_MAX}
        return found


def _rounded(values: NDArray[Any], digits: int) -> list[float | None]:
    return [
        round(value, digits) if math.isfinite(value) else None
        for value in values.astype(np.float64).tolist()
    ]


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False))


def _is_number(kind: pa.DataType) -> bool:
    types = require("pyarrow.types", "table")
    return bool(types.is_floating(kind) or types.is_integer(kind))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
