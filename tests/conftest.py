"""What all tests share: real models and images, threads, and what `make check` leaves out."""

from __future__ import annotations

import pytest
import torch

from helpers.realdata import images, lite0, models, resnet18

__all__ = ["images", "lite0", "models", "resnet18"]

# Two cores are shared with other processes: more threads than that only wait for each other.
torch.set_num_threads(min(2, torch.get_num_threads()))

# A test is slow if its module starts processes or it runs a real model; others say so themselves.
_STARTS_PROCESSES = {"multiprocessing", "ray", "subprocess"}
_REAL_MODELS = {"lite0", "models", "resnet18"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a read that the system fails again at once."""
    monkeypatch.setattr("lc_engine.data.faults.PAUSES", (0.0, 0.0, 0.0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes or run a real model as slow."""
    for item in items:
        module = getattr(item, "module", None)
        starts = not _STARTS_PROCESSES.isdisjoint(vars(module)) if module else False
        real = not _REAL_MODELS.isdisjoint(getattr(item, "fixturenames", ()))
        if starts or real:
            item.add_marker(pytest.mark.slow)
