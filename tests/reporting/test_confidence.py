from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from lc_engine.data.table import ScoreTable
from lc_engine.path.learning_path import LearningPath
from lc_engine.reporting.confidence import draw_confidence

PATH = LearningPath.gauss(4, 0.3, 1.0)


def table(seed: int, rows: int = 60, classes: int = 4, *, path: bool = True) -> ScoreTable:
    """Random scores; every seventh row is unreadable."""
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.uniform(0.01, 1, (rows, len(PATH)))).astype(np.float32)
    status = np.where(np.arange(rows) % 7 == 3, "unreadable", "ok")
    log_probs[status != "ok"] = np.nan
    p = np.exp(log_probs.astype(np.float64))
    lc = p @ np.array(PATH.weights)
    return ScoreTable.from_arrays(
        ids=np.array([f"row-{i}" for i in range(rows)]),
        labels=rng.permutation(np.arange(rows) % classes),
        lc=lc.astype(np.float32),
        loss=-lc.astype(np.float32),
        lc_std=p.std(1).astype(np.float32),
        status=status.tolist(),
        detail=["" if s == "ok" else "broken" for s in status],
        metadata={"path": PATH.to_dict()},
        path_log_probs=log_probs if path else None,
    )


class RecordingLoader:
    """Loads an image whose shade is its row, and records the ids."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, name: str) -> np.ndarray:
        self.ids.append(name)
        return np.full((8, 8, 3), int(name.removeprefix("row-")), np.uint8)


def pixels(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file)
    return np.asarray(PIL.Image.open(file).convert("RGB"))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_curves_are_the_quantiles_of_the_groups(seed):
    scores = table(seed)
    figure = draw_confidence(scores, RecordingLoader(), title="A title")
    curves = figure.subfigs[0].axes[0]
    ok = scores.column("status") == "ok"
    p, lc = np.exp(scores.column("path_log_probs")[ok]), scores.column("lc")[ok]
    count = round(0.1 * ok.sum())
    groups = (np.argsort(-lc)[:count], np.arange(ok.sum()), np.argsort(lc)[:count])
    assert len(curves.lines) == 3
    for line, group, band in zip(curves.lines, groups, curves.collections, strict=True):
        np.testing.assert_allclose(line.get_xdata(), 100 * np.array(PATH.capacities))
        np.testing.assert_allclose(line.get_ydata(), np.median(p[group], 0), rtol=1e-6)
        heights = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose(heights.min(), np.quantile(p[group], 0.25, 0).min(), rtol=1e-6)
        np.testing.assert_allclose(heights.max(), np.quantile(p[group], 0.75, 0).max(), rtol=1e-6)
    assert [text.get_text() for text in curves.texts] == [
        "easiest 10%", f"all {ok.sum()}", "hardest 10%"
    ]  # fmt: skip
    heights = [text.xy[1] for text in curves.texts]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [1, 4, 13])
def test_the_images_are_the_easiest_and_hardest_of_each_class(seed, classes):
    scores, load = table(seed, classes=classes), RecordingLoader()
    figure = draw_confidence(scores, load, title="A title", classes=list("abcdefghijklm"))
    labels, lc = scores.column("label"), scores.column("lc")
    ok = scores.column("status") == "ok"
    want, captions = [], []
    for best in (np.argmax, np.argmin):
        for label in range(min(classes, 10)):
            rows = np.flatnonzero(ok & (labels == label))
            row = rows[best(lc[rows])]
            want.append(f"row-{row}")
            captions.append(f"{'abcdefghijklm'[label]} · {lc[row]:.2f}")
    assert load.ids == want
    shown = figure.subfigs[1].axes
    assert [axes.get_title() for axes in shown] == captions
    for axes, name in zip(shown, want, strict=True):
        assert (axes.images[0].get_array() == int(name.removeprefix("row-"))).all()


def test_the_figure_has_its_size_and_content_on_both_sides():
    found = pixels(draw_confidence(table(0), RecordingLoader(), title="A title"))
    assert found.shape == (900, 1600, 3)
    for half in (found[:, :800], found[:, 800:]):
        assert 0.02 < (half != 255).any(2).mean() < 0.6
    # Nothing is cut off: the margins are empty.
    assert (found[:, :8] == 255).all()
    assert (found[:, -8:] == 255).all()


def test_a_table_of_one_row_can_be_drawn():
    scores = table(0, rows=1, classes=1)
    assert pixels(draw_confidence(scores, RecordingLoader(), title="One")).min() < 255


@pytest.mark.slow
def test_gray_images_are_shown_gray():
    figure = draw_confidence(
        table(0), lambda _: PIL.Image.fromarray(np.eye(5, dtype=np.uint8)), title="Grey"
    )
    assert figure.subfigs[1].axes[0].images[0].get_cmap().name == "gray"


def test_an_incomplete_table_is_refused():
    with pytest.raises(ValueError, match="no column path_log_probs: score with return_path=True"):
        draw_confidence(table(0, path=False), RecordingLoader(), title="")
    broken = table(0, rows=4).only(np.array(["row-3"]))
    with pytest.raises(ValueError, match='no row with status "ok"'):
        draw_confidence(broken, RecordingLoader(), title="")
