"""The sections of the page: what its template reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.reporting.duplicates import COMPARED, THRESHOLD
from lc_engine.reporting.survey import MOST_VALUES, NEVER
from lc_engine.reporting.totals import Totals, length_name
from lc_engine.selection.suspicious import to_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lc_engine.reporting.content import Content, Row

LISTED = 24
_LINES = 200  # of a table of groups
_CONFUSED = 20  # classes of the table of confusion, and pairs of the list
_LENGTH = "token_count"


@dataclass(frozen=True)
class Gallery:
    """Rows that are shown side by side; `beside` has a caption for each pair of them."""

    name: str
    note: str
    rows: Sequence[Row]
    beside: Sequence[str] = ()


def sections(content: Content, trial: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the template reads.

    Args:
        content: of the page.
        trial: what was tried, as `Selection.trial` has it.
    """
    survey = content.survey
    return {
        "facts": list(content.run.facts()),
        "command": content.run.command(),
        "warnings": content.warnings,
        "rows": content.rows,
        "scored": survey.scored,
        "status": content.status,
        "median_lc": survey.median_lc,
        "never": sum(t.never for t in survey.classes.values()) / max(1, survey.scored),
        "has_path": survey.has_path,
        "is_flat": len(content.run.capacities) == 1,
        "has_labels": content.has_labels,
        "has_suggestions": content.nearest is not None,
        "is_sample": len(survey.drawn) < content.rows,
        "drawn": len(survey.drawn),
        "galleries": _galleries(content),
        "is_shaded": any(t.tokens for p in content.previews.values() for t in p.turns),
        "is_language": content.run.is_language,
        "selections": content.kept_by(),
        "overlaps": _overlaps(content),
        "trial": sorted(trial, key=lambda tried: -tried["gain"]),
        "by_class": _by_class(content),
        "by_columns": _by_columns(content),
        "confusion": _confusion(content),
        "suspicious": suspicious(content),
        "bad": _bad(content),
        "budget": budget(content),
    }


def suspicious(content: Content) -> list[Row]:
    """Return the suspicious rows, the most suspicious first, with a reason each."""
    reasons = content.suspects.reasons(content.classes)
    return [
        content.row(number, f"{reason}; {_confidence(content, number)}")
        for number, reason in zip(content.suspects.rows.tolist(), reasons, strict=True)
    ]


def suspicious_csv(content: Content) -> str:
    """Return the list of suspicious rows as CSV, the most suspicious first."""
    rows = suspicious(content)
    columns: dict[str, Sequence[Any]] = {
        "row": content.suspects.rows.tolist(),
        "id": [row.id for row in rows],
        "label": [row.label or "" for row in rows],
        "rank": [f"{rank:.6g}" for rank in content.suspects.rank.tolist()],
    }
    columns |= {
        name: [f"{getattr(row, name):.6g}" for row in rows] for name in ("loss", "lc", "lc_std")
    }
    columns["suggested"] = content.suspects.suggestions(content.classes)
    columns["reason"] = [row.reason for row in rows]
    return to_csv(columns)


def budget(content: Content) -> list[dict[str, Any]]:
    """Return the kept shares by group of lc, the hardest group first."""
    edges, rows = content.survey.budget()
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


def _confidence(content: Content, number: int) -> str:
    point = int(np.searchsorted(content.numbers, number))
    label = int(content.columns["label"][point])
    total = content.survey.classes[label]
    if label >= 0:
        usual = f"mean of its class {_percent(total.lc / total.rows)}"
    else:
        usual = f"median of all rows {_percent(content.survey.median_lc)}"
    if content.paths is None:
        return f"mean confidence {_percent(content.columns['lc'][point])}; {usual}"
    path = content.paths[point]
    best = int(np.argmax(path))
    capacities = content.run.capacities
    where = f" at capacity {_percent(capacities[best])}" if best < len(capacities) else ""
    most = f"{_percent(path[best])}{where}; {usual}"
    if path[best] < NEVER:
        return f"below {100 * NEVER:.0f} % under every sub-model: at most {most}"
    return f"confidence from {_percent(path.min())} to {most}"


def _galleries(content: Content) -> list[Gallery]:
    survey = content.survey
    found = [
        Gallery("Easiest", "highest lc", content.listed(survey.easiest)),
        Gallery("Hardest", "lowest lc", content.listed(survey.hardest)),
        Gallery(
            "Most likely mislabelled" if content.has_labels else "Least expected",
            "hardest of their class" if content.has_labels else "hardest",
            suspicious(content)[:LISTED],
        ),
    ]
    pairs = content.duplicates
    compared = min(len(survey.drawn), COMPARED)
    found.append(
        Gallery(
            "Near-duplicates",
            f"pairs whose features have a cosine of {THRESHOLD} or more, about their mean, among "
            f"{compared:,} rows",
            [content.row(number) for pair in pairs for number in (pair.first, pair.second)],
            [f"cosine {pair.cosine:.3f}" for pair in pairs],
        )
    )
    for name, border in content.borders.items():
        note = f"nearest to lc {border.lc:.3f}, where the kept share changes most"
        for side, rows in (("kept", border.kept), ("dropped", border.dropped)):
            found.append(Gallery(f"Border of {name}: {side}", note, content.listed(rows)))
    for name, rows in zip(content.subsets, survey.alone, strict=True):
        note = "a random choice of the rows that no other selection keeps"
        found.append(Gallery(f"Kept by {name} alone", note, content.listed(rows)))
    return [gallery for gallery in found if gallery.rows]


def _line(name: str, total: Totals) -> dict[str, Any]:
    return {
        "name": name,
        "rows": total.rows,
        "lc": total.lc / total.rows,
        "lc_std": total.lc_std / total.rows,
        "never": total.never / total.rows,
        "kept": [int(kept) for kept in total.kept],
        "shares": [kept / total.rows for kept in total.kept],
    }


def _by_class(content: Content) -> dict[str, Any]:
    """Return what is known of each class, the hardest first."""
    order = sorted(content.survey.classes.items(), key=lambda item: item[1].lc / item[1].rows)
    lines = [_line(content.label(label) or "no label", total) for label, total in order[:_LINES]]
    return {"name": "Class", "lines": lines, "left_out": max(0, len(order) - _LINES)}


def _by_columns(content: Content) -> list[dict[str, Any]]:
    """Return the same for the values of further columns, the most frequent first, and lengths."""
    found = []
    for name, groups in content.survey.groups.items():
        if name == _LENGTH:
            items = [(length_name(group), groups[group]) for group in sorted(groups)]
        else:
            items = sorted(groups.items(), key=lambda item: (-item[1].rows, item[0]))
        if len(items) > MOST_VALUES:
            content.warnings.append(
                f"Column {name} has more than {MOST_VALUES:,} values: rows are not counted by it."
            )
            continue
        lines = [_line(value, total) for value, total in items[:_LINES]]
        shown = "Length of the response" if name == _LENGTH else name
        found.append({"name": shown, "lines": lines, "left_out": max(0, len(items) - _LINES)})
    return found


def _confusion(content: Content) -> dict[str, Any] | None:
    """Return how the labels of the page's rows and the nearest class means go together."""
    if content.nearest is None:
        return None
    drawn = np.isin(content.numbers, content.survey.drawn) & (content.nearest >= 0)
    own, other = content.columns["label"][drawn].astype(np.int64), content.nearest[drawn]
    pairs, counts = np.unique(np.stack([own, other]), axis=1, return_counts=True)
    of_label = dict(zip(*np.unique(own, return_counts=True), strict=True))
    order = np.argsort(-counts, kind="stable")
    confused = [
        {
            "label": content.label(int(pairs[0, i])),
            "other": content.label(int(pairs[1, i])),
            "rows": int(counts[i]),
            "share": float(counts[i] / of_label[pairs[0, i]]),
        }
        for i in order
        if pairs[0, i] != pairs[1, i]
    ]
    labels = np.union1d(own, other)
    matrix = None
    if len(labels) <= _CONFUSED:
        cells = {(a, b): n for (a, b), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)}
        matrix = [
            [cells.get((a, b), 0) / max(1, of_label.get(a, 0)) for b in labels.tolist()]
            for a in labels.tolist()
        ]
    return {
        "names": [content.label(label) for label in labels.tolist()],
        "matrix": matrix,
        "pairs": confused[:_CONFUSED],
        "rows": len(own),
        "share": float((own == other).mean()) if len(own) else 0.0,
    }


def _overlaps(content: Content) -> list[dict[str, Any]]:
    """Return the rows of every set of selections, and their share of all scored rows."""
    names = list(content.subsets)
    return [
        {
            "names": [name for i, name in enumerate(names) if code >> i & 1],
            "rows": int(count),
            "share": count / max(1, content.survey.scored),
        }
        for code, count in enumerate(content.survey.overlap)
    ]


def _bad(content: Content) -> list[tuple[str, str, str]]:
    """Return (id, status, detail) of rows without a score."""
    points = np.searchsorted(content.numbers, content.survey.bad)
    taken = content.taken.select(["status", "detail"]).take(
        require("pyarrow", "table").array(points)
    )
    status, detail = (taken.column(name).to_pylist() for name in ("status", "detail"))
    return list(zip([content.ids[i] for i in points.tolist()], status, detail, strict=True))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
