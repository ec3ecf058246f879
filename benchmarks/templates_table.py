"""Write the tables of docs/templates.md: is the response found under every chat template?

    pip install sentencepiece
    python -m benchmarks.templates_table [--write docs/templates.md] [--only qwen3] [--sets]

Every template that TRL, axolotl and llama-cpp-python carry renders a row of every kind
(`benchmarks/templates/rows.py`), with a byte-level tokenizer whose vocabulary holds the templates'
control tokens and with a SentencePiece one that does not. The tokens that lc_engine scores are
compared with an account that shares no code with it (`benchmarks/templates/account.py`). No model
is run.
"""

from __future__ import annotations

import argparse
import collections
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.templates.judge import judge
from benchmarks.templates.packages import AXOLOTL, LLAMA_CPP, TRL, chat_templates
from benchmarks.templates.real_sets import FAMILIES, judged_sets
from benchmarks.templates.rendering import Renderer
from benchmarks.templates.rows import KINDS
from benchmarks.templates.tokenizers import tokenizer, with_control_tokens
from lc_engine.language.encoder import Encoder

if TYPE_CHECKING:
    from benchmarks.templates.judge import Verdict

    # (tokenizer, template, kind)
    Key = tuple[str, str, str]

_WINDOW: Final = 1 << 20
_OUTCOMES: Final = {
    "right": "right",
    "wrong": "scored otherwise",
    "unscored": "no score",
    "unwritten": "template writes no answer",
    "rejected": "template rejects",
}
BEGIN: Final = "<!-- {}: written by `python -m benchmarks.templates_table --write` -->"
END: Final = "<!-- end of {} -->"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path, help="the page whose tables are replaced")
    parser.add_argument("--only", default="", help="part of the templates' names")
    parser.add_argument("--kinds", default="", help="names of kinds, separated by commas")
    parser.add_argument("--sets", action="store_true", help="only the real sets")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    templates = chat_templates()
    tables = {}
    if not asked.sets:
        kinds = [kind for kind in asked.kinds.split(",") if kind] or list(KINDS)
        named = {name: text for name, text in templates.items() if asked.only in name}
        found = _judged(templates, named, kinds)
        _print_others(found)
        tables["kinds"] = table_of_kinds(found, len(named))
        tables["reasons"] = table_of_reasons(found)
    if asked.sets or asked.write:
        tables["sets"] = _table_of_sets(templates)
    for text in tables.values():
        print(text)
    print(f"{time.monotonic() - started:.0f} s")
    if asked.write:
        write(asked.write, tables)


def _judged(
    templates: dict[str, str], named: dict[str, str], kinds: list[str]
) -> dict[Key, Verdict]:
    tokenizers = {
        "byte-level BPE": with_control_tokens(tokenizer("gpt-2"), templates.values()),
        "SentencePiece": tokenizer("mistral-v3"),
    }
    found = {}
    for tokens, made in tokenizers.items():
        for name, text in named.items():
            render = Renderer(text, made.special_tokens_map)
            encoder = Encoder(made, window=_WINDOW, chat_template=text)
            for kind in kinds:
                found[tokens, name, kind] = judge(encoder, render, KINDS[kind])
    return found


def _print_others(found: dict[Key, Verdict]) -> None:
    for key, verdict in found.items():
        if verdict.outcome != "right":
            print(*key, *verdict, sep="\t")


def table_of_kinds(found: dict[Key, Verdict], templates: int) -> str:
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (_, _, kind), verdict in found.items():
        counts[kind][verdict.outcome] += 1
    counts["together"] = sum(counts.values(), collections.Counter())
    total = counts["together"]
    valid = total["right"] + total["wrong"] + total["unscored"]
    lines = [
        f"{templates} templates (TRL {TRL[1]}, axolotl {AXOLOTL[1]}, llama-cpp-python "
        f"{LLAMA_CPP[1]}), two tokenizers, {len(counts) - 1} kinds of row. Of {valid:,} rows that "
        f"a template takes and whose answer it writes, {total['wrong']} are scored on other tokens "
        f"than the account's, and {total['unscored']} ({total['unscored'] / valid:.2%}) get no "
        "score.",
        "",
        "| kind of row | " + " | ".join(_OUTCOMES.values()) + " |",
        "|---|" + "---|" * len(_OUTCOMES),
    ]
    for kind, count in counts.items():
        lines.append(f"| {kind} | " + " | ".join(str(count[one]) for one in _OUTCOMES) + " |")
    return "\n".join(lines)


def table_of_reasons(found: dict[Key, Verdict]) -> str:
    reasons: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for (_, name, _), verdict in found.items():
        if verdict.outcome != "right":
            reasons[_OUTCOMES[verdict.outcome], _reason(verdict.detail)].add(name)
    lines = ["| outcome | what lc_engine says | templates |", "|---|---|---|"]
    for (outcome, reason), names in sorted(reasons.items()):
        shown = ", ".join(sorted(names)) if len(names) <= 3 else f"{len(names)} templates"
        lines.append(f"| {outcome} | {reason} | {shown} |")
    return "\n".join(lines)


def _reason(detail: str) -> str:
    status, _, rest = detail.partition(": ")
    return f"`{status}`: {rest.removeprefix('row 0: ')}".replace("|", "\\|")


def _table_of_sets(templates: dict[str, str]) -> str:
    lines = [
        "| template, vocabulary | set | rows | scored | right | no score, and why |",
        "|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        for name, rows, statuses, verdicts in judged_sets(family, templates[family.template]):
            why = "; ".join(
                f"{count} × {_reason(said)}" for said, count in statuses.items() if said != "ok"
            )
            taken = [verdict for verdict in verdicts if verdict.outcome != "rejected"]
            right = sum(verdict.outcome == "right" for verdict in taken)
            lines.append(
                f"| `{family.template}`, {family.tokens} | {name} | {rows:,} "
                f"| {statuses['ok']:,} | {right} of {len(taken)} | {why} |"
            )
    return "\n".join(lines)


def write(page: Path, tables: dict[str, str]) -> None:
    text = page.read_text("utf-8")
    for name, table in tables.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if not rest or not after:
            raise ValueError(f"{page} lacks the lines {begin} and {end}")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
