"""Kinds of processors: the tests of this folder choose kernels alike on each."""

from __future__ import annotations

import pytest

from lc_engine.backbone import tuning


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chooses kernels as on a processor without AMX."""
    monkeypatch.setattr(tuning, "kind", lambda: "vectors")


@pytest.fixture
def tiles(vectors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chooses kernels as on a processor with AMX, whose library this one's stands for."""
    monkeypatch.setattr(tuning, "kind", lambda: "tiles")
