"""The map and the budget curve alone, as an image for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.atomic_write import atomic_write
from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.table import ScoreTable
from lc_engine.reporting.subsets import read_subsets
from lc_engine.reporting.survey import STD_MAX, Survey, take

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by every kind of colour vision.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_OTHER, _INK, _GRID = "#9aa4af", "#222222", "#dddddd"


def write_figure(
    scores: ScoreTable | str | os.PathLike[str],
    subset: Any = None,
    out: str | os.PathLike[str] = "report.png",
    *,
    title: str | None = None,
    points: int = 20_000,
    seed: int = 0,
) -> Path:
    """Write the map of a score table, and beside it the share kept by rank if there is a subset.

    Args:
        scores: as in `lc_engine.report`, like `subset`, `title`, `points` and `seed`.
        subset: rows kept; the map is coloured by the first selection.
        out: the image, .png, .svg or .pdf.
        title: of the figure; None leaves it out.
        points: rows that the map draws; of more it draws a sample, over the density of all.
        seed: of the sample.

    Raises:
        ValueError: the subset does not belong to the scores, or no row has a score.
        FileNotFoundError: a file that is not there.
        MissingExtraError: matplotlib is not installed.
    """
    table = scores if isinstance(scores, ScoreTable) else ScoreTable.read(Path(scores))
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as temporary:
        _draw(table, subset, title, points, seed).savefig(temporary, format=out.suffix[1:])
    return out


def _draw(table: ScoreTable, subset: Any, title: str | None, points: int, seed: int) -> Figure:
    subsets = read_subsets(subset, table.id_type)
    survey = Survey(table, subsets, drawn=points, listed=1, bad=1, seed=seed)
    if not survey.scored:
        raise ValueError('the score table has no row with status "ok": there is nothing to draw')
    panels = 2 if subsets else 1
    figure: Figure = require("matplotlib.figure", "report").Figure(
        figsize=(5.2 * panels, 4.2), dpi=200, layout="constrained"
    )
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if title is not None:
        figure.suptitle(title, color=_INK)
    _draw_map(axes[0], table, survey)
    if subsets:
        _draw_budget(axes[1], survey, list(subsets))
    for one in axes:
        one.grid(color=_GRID, linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_map(axes: Axes, table: ScoreTable, survey: Survey) -> None:
    rows = take(table, survey.drawn)
    ok = np.array(rows.column("status").to_pylist(), object) == OK
    x, y = (np.asarray(rows.column(name).to_numpy())[ok] for name in ("lc", "lc_std"))
    if len(survey.drawn) < len(table):
        log = np.log10(np.where(survey.density, survey.density, np.nan))
        axes.imshow(
            log, origin="lower", extent=(0, 1, 0, STD_MAX), aspect="auto", cmap="Greys", alpha=0.6
        )
    size = 4 if len(x) > 5000 else 10
    kept = survey.kept(rows)[:, ok]
    chosen = kept[0] if len(kept) else np.zeros(len(x), bool)
    axes.scatter(x[~chosen], y[~chosen], s=size, c=_OTHER, linewidths=0, rasterized=True)
    axes.scatter(x[chosen], y[chosen], s=size, c=_COLOURS[0], linewidths=0, rasterized=True)
    axes.set_xlabel("mean confidence over the path (lc)")
    axes.set_ylabel("its standard deviation (lc_std)")


def _draw_budget(axes: Axes, survey: Survey, names: list[str]) -> None:
    _, rows = survey.budget()
    ends = 100 * np.concatenate([[0], np.cumsum(rows[0])]) / rows[0].sum()
    for name, kept, colour in zip(names, rows[1:], _COLOURS, strict=False):
        axes.stairs(100 * kept / np.maximum(rows[0], 1), ends, label=name, color=colour, lw=2)
    axes.set_xlabel("rank by confidence, % (hardest first)")
    axes.set_ylabel("share kept, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(0)
    axes.legend(frameon=False)
