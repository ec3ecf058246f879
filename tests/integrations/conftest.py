from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "language"))


@pytest.fixture(scope="session")
def talk() -> list[dict[str, str]]:
    """120 real questions and answers: prompt and completion."""
    from lc_engine.demo.language_data import conversations

    return conversations()[::7][:120]


@pytest.fixture(scope="session")
def llama():
    """A tiny Llama and its tokenizer."""
    import tiny

    return tiny.model(), tiny.tokenizer()
