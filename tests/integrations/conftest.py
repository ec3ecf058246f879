from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def talk() -> list[dict[str, str]]:
    """120 real questions and answers: prompt and completion."""
    from lc_engine.bench.language_data import conversations

    return conversations()[::7][:120]


@pytest.fixture(scope="session")
def llama():
    """A tiny Llama and its tokenizer."""
    from helpers import tiny_language_model as tiny

    return tiny.model(), tiny.tokenizer()
