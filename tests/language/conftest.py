from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers import tiny_language_model as tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The tiny Llama as `save_pretrained` writes it."""
    path = tmp_path_factory.mktemp("tiny-llama")
    tiny.model().save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path
