from __future__ import annotations

import pandas as pd
import pytest

from helpers.pages_of_scores import payload
from helpers.pruning import prune, selection
from lc_engine._util.extras import MissingExtraError
from lc_engine.reporting import page


@pytest.mark.slow
def test_the_page_is_made_or_left_out_by_name(model, photos, tmp_path, monkeypatch, caplog):
    pytest.importorskip("plotly")
    prune(model, photos, tmp_path / "pruned", "--keep=9")
    assert "<html" in (tmp_path / "pruned" / "report.html").read_text(encoding="utf-8")[:500]
    own, beside = (
        pd.read_csv(tmp_path / "pruned" / name)
        for name in ("suspicious.csv", "report.suspicious.csv")
    )
    for name in ("row", "id", "suggested"):
        assert own[name].equals(beside[name][: len(own)])

    def missing(*given, **options):
        raise MissingExtraError("plotly is not installed")

    monkeypatch.setattr(page, "report", missing)
    assert prune(model, photos, tmp_path / "pruned", "--keep=6") == 3
    assert "report.html is left out: plotly is not installed" in caplog.text
    assert not (tmp_path / "pruned" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words", "method"),
    [
        (["--strategy=flexrand", "--gamma=0"], "random (flexrand with gamma 0)", "random"),
        (["--strategy=flexrand", "--gamma=1"], "random (flexrand with gamma 1)", "random"),
        (["--strategy=flexrand", "--gamma=0.5"], "flexrand with gamma 0.5", "flexrand"),
        (["--strategy=easy"], "easy", "easy"),
    ],
)
def test_rows_that_were_drawn_without_their_scores_are_called_random_everywhere(
    model, photos, tmp_path, capsys, options, words, method
):
    pytest.importorskip("plotly")
    out = tmp_path / "pruned"
    assert prune(model, photos, out, "--keep=9", *options) == 3
    assert f"kept 9 of 31 rows (--keep 9) by {words} in " in capsys.readouterr().out
    found = selection(out)
    assert found["method"] == method
    assert found["strategy"] == options[0].partition("=")[2]
    assert payload(out / "report.html")["subsets"] == [words]
