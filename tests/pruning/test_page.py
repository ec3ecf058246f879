from __future__ import annotations

import pytest

from helpers.pruning import prune
from lc_engine._util.extras import MissingExtraError
from lc_engine.reporting import page


def test_the_page_is_made_or_left_out_by_name(model, photos, tmp_path, monkeypatch, caplog):
    pytest.importorskip("plotly")
    prune(model, photos, tmp_path / "pruned", "--keep=9")
    assert "<html" in (tmp_path / "pruned" / "report.html").read_text(encoding="utf-8")[:500]

    def missing(*given, **options):
        raise MissingExtraError("plotly is not installed")

    monkeypatch.setattr(page, "report", missing)
    assert prune(model, photos, tmp_path / "pruned", "--keep=6") == 3
    assert "report.html is left out: plotly is not installed" in caplog.text
    assert not (tmp_path / "pruned" / "report.html").exists()
