"""Real fast tokenizers that install as packages, by name."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Final

import transformers

from benchmarks.templates.packages import llama_cpp_models
from lc_engine._util import wheels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MISTRAL: Final = ("mistral-common", "1.13.1")
_MISTRAL_FILES: Final = {
    "mistral-v1": "mistral_common/data/tokenizer.model.v1",
    "mistral-v3": "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3",
}
# What tokenizers hold as tokens of their own: <|im_end|>, [INST], <think>, <start_of_turn> ...
_CONTROL: Final = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?[A-Z_]{2,30}\]|</?[a-z_]{2,30}>"
)


def tokenizer(name: str) -> Any:
    """Return a tokenizer: "mistral-v1" or "mistral-v3" (SentencePiece), else a GGUF vocabulary.

    The conversion takes up to a minute and is kept in the cache.

    Args:
        name: of `_MISTRAL_FILES`, or of llama.cpp's `ggml-vocab-NAME.gguf`.

    Raises:
        RuntimeError: pip could not download it.
        ModuleNotFoundError: sentencepiece, which Mistral's need, is not installed.
    """
    folder = wheels.cache_folder() / "tokenizers" / name
    if not (folder / "tokenizer.json").exists():
        _converted(name, folder).save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def with_control_tokens(made: Any, templates: Iterable[str]) -> Any:
    """Let the control tokens that templates write be tokens of their own, as in their models."""
    found = sorted({token for text in templates for token in _CONTROL.findall(text)})
    made.add_tokens(found, special_tokens=True)
    return made


def _converted(name: str, folder: Path) -> Any:
    if name in _MISTRAL_FILES:
        # Without it transformers makes a tokenizer of three tokens, and says nothing.
        importlib.import_module("sentencepiece")
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / "tokenizer.model"
        model.write_bytes(wheels.read(*_MISTRAL, _MISTRAL_FILES[name]))
        return transformers.LlamaTokenizer.from_pretrained(folder)
    # AutoTokenizer reads the model's configuration first, which transformers refuses for Gemma 4.
    kind = transformers.GemmaTokenizer if name.startswith("gemma") else transformers.AutoTokenizer
    return kind.from_pretrained(llama_cpp_models(), gguf_file=f"ggml-vocab-{name}.gguf")
