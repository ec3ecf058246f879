from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from helpers.pages_of_scores import scored
from lc_engine.reporting.figure import _draw, write_figure


@pytest.mark.parametrize("points", [50, 1000])
def test_the_figure_shows_the_rows_and_the_shares(points, tmp_path):
    table = scored(0, rows=300)
    ok = table.column("status") == "ok"
    kept = table.column("id")[ok][:100]
    left, right = _draw(table, {"mine": kept}, None, points, 0).axes
    dots = np.concatenate([part.get_offsets() for part in left.collections])
    want = np.stack([table.column("lc")[ok], table.column("lc_std")[ok]], 1)
    assert {tuple(dot) for dot in dots} <= {tuple(row) for row in want.astype(float)}
    assert len(left.images) == (points < 300)
    if points > 300:
        assert len(dots) == ok.sum()
        assert len(left.collections[1].get_offsets()) == 100
    (line,) = right.patches
    shares, ends, _ = line.get_data()
    np.testing.assert_allclose((shares * np.diff(ends)).sum() / 100, 100 * 100 / ok.sum())
    pixels = np.asarray(PIL.Image.open(write_figure(table, kept, tmp_path / "a.png")))
    assert (pixels[..., :3] != 255).any(2).mean() > 0.02


def test_a_table_without_scores_is_refused():
    with pytest.raises(ValueError, match='no row with status "ok"'):
        write_figure(scored(0, rows=3, bad=1))
