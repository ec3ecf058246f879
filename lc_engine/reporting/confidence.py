"""A figure of a score table: confidence against capacity, and its easiest and hardest samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from numpy.typing import NDArray

    from lc_engine.data.table import ScoreTable

# Okabe and Ito's blue and vermilion, distinguishable with color blindness.
_EASY_COLOR, _ALL_COLOR, _HARD_COLOR = "#0072B2", "#767676", "#D55E00"
_TEXT, _GRID = "#222222", "#dddddd"
_SHARE = 0.1  # of the rows that the curves of the easiest and hardest average over
_ROWS, _COLUMNS = 2, 5  # of images per block
_LABEL_GAP = 0.085  # least distance of two line labels, in units of the axis


def draw_confidence(
    table: ScoreTable,
    load: Callable[[Any], Any],
    *,
    title: str,
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw how confidence in the label falls with capacity, and the easiest and hardest samples.

    On the left the easiest 10 %, all and the hardest 10 % by learning complexity: medians with
    interquartile bands. On the right the easiest and the hardest sample of each of the first ten
    classes.

    Args:
        table: scored with its path (`return_path=True`, `--save-path`).
        load: from a row's id to its image, a PIL image or an array (H, W[, 3]).
        title: of the figure.
        classes: names by label; None shows the labels.

    Returns:
        The figure, 1600 × 900 pixels; `savefig` writes it.

    Raises:
        ValueError: the table has no path or no scored row.
        MissingExtraError: matplotlib is not installed.
    """
    if "path_log_probs" not in table.table.column_names:
        raise ValueError(
            "the score table has no column path_log_probs: score with return_path=True or "
            "--save-path"
        )
    rows = np.flatnonzero(table.column("status") == OK)
    if not len(rows):
        raise ValueError('the score table has no row with status "ok": there is nothing to draw')
    rows = rows[np.argsort(-table.column("lc")[rows], kind="stable")]
    figure: Figure = require("matplotlib.figure", "report").Figure(figsize=(10, 5.625), dpi=160)
    figure.suptitle(title, x=0.02, y=0.965, ha="left", color=_TEXT, fontsize=14, fontweight="bold")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.08, 1.0))[0]
    _draw_curves(left, table, rows)
    _draw_samples(right, table, rows, load, classes)
    return figure


def _draw_curves(panel: SubFigure, table: ScoreTable, rows: NDArray[np.intp]) -> None:
    axes = panel.add_axes((0.14, 0.14, 0.615, 0.69))
    capacity = 100 * np.array(table.metadata["path"]["capacities"])
    confidence = np.exp(table.column("path_log_probs")[rows].astype(np.float64))
    share = max(1, round(_SHARE * len(rows)))
    groups = (
        (f"easiest {_SHARE:.0%}", _EASY_COLOR, confidence[:share]),
        (f"all {len(rows):,}", _ALL_COLOR, confidence),
        (f"hardest {_SHARE:.0%}", _HARD_COLOR, confidence[-share:]),
    )
    ends = []
    for _, color, values in groups:
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        axes.fill_between(capacity, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(capacity, middle, color=color, linewidth=2.4, marker="o", markersize=4.5)
        ends.append(float(middle[0]))
    for (name, color, _), height in zip(groups, _spread_labels(ends), strict=True):
        axes.annotate(
            name,
            (1.025, height),
            xycoords=("axes fraction", "data"),
            color=color,
            fontsize=11.5,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("capacity: share of the weights kept, %")
    axes.set_ylabel("confidence in the sample's own label")
    axes.set_title(
        "median and interquartile range of the samples",
        loc="left",
        fontsize=10.5,
        color=_TEXT,
        pad=8,
    )
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=_TEXT, labelsize=10.5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=11.5, color=_TEXT)


def _spread_labels(heights: list[float]) -> list[float]:
    """Return descending label heights at least _LABEL_GAP apart, moved upwards from the lowest."""
    moved = list(heights)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = max(moved[i], moved[i + 1] + _LABEL_GAP)
    return moved


def _draw_samples(
    panel: SubFigure,
    table: ScoreTable,
    rows: NDArray[np.intp],
    load: Callable[[Any], Any],
    classes: Sequence[str] | None,
) -> None:
    ids, labels, lc = (table.column(name) for name in ("id", "label", "lc"))
    shown = np.unique(labels[rows])[: _ROWS * _COLUMNS]
    blocks = (
        ("easiest of each class", _EASY_COLOR, rows, 0.475),
        ("hardest of each class", _HARD_COLOR, rows[::-1], 0.035),
    )
    panel.text(0.985, 0.86, "label · learning complexity", color=_TEXT, fontsize=9.5, ha="right")
    for name, color, order, bottom in blocks:
        panel.text(0.035, bottom + 0.385, name, color=color, fontsize=11.5, fontweight="bold")
        for i, label in enumerate(shown):
            row = order[np.argmax(labels[order] == label)]
            line, column = divmod(i, _COLUMNS)
            axes = panel.add_axes((0.035 + 0.195 * column, bottom + 0.185 * (1 - line), 0.17, 0.14))
            class_name = str(label) if classes is None else classes[label]
            _show_image(axes, load(ids[row]), f"{class_name} · {lc[row]:.2f}")


def _show_image(axes: Axes, image: Any, caption: str) -> None:
    pixels = np.asarray(image)
    axes.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None)
    axes.set_title(caption, fontsize=9.5, color=_TEXT, pad=3)
    axes.axis("off")
