"""How often faults are tried, and the count of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.faults_report import Tally

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MANY = os.environ.get("LC_ENGINE_FAULTS") == "all"


@pytest.fixture(scope="session")
def tally():
    """Counts what was tried; of many faults, the page gets the table."""
    counted = Tally()
    yield counted
    if MANY and not counted.failures():
        counted.write(PAGE)


@pytest.fixture(scope="session")
def many() -> bool:
    """Whether many faults are tried."""
    return MANY


@pytest.fixture
def _no_pauses():
    """Processes of their own wait as ever."""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.slow)
