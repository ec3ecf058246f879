"""What `lc-engine demo --language` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.demo.summary import aligned

if TYPE_CHECKING:
    from lc_engine.demo.language import LanguageOutcome

_WIDTH = 46


def language_text(outcome: LanguageOutcome) -> str:
    """Write the tables for a terminal."""
    return "\n".join(
        [
            "",
            *_parity(outcome),
            "",
            *_speed(outcome),
            "",
            f"{outcome.rows:,} conversations under {outcome.sub_models} sub-models in "
            f"{outcome.seconds:.1f} s ({outcome.dtype}, {outcome.tokens / outcome.seconds:,.0f} "
            "tokens/s over all of them)",
            "",
            *_examples(outcome),
            "",
            f"kept     {outcome.kept} of {outcome.rows}",
            f"written  {outcome.out}",
        ]
    )


def _parity(outcome: LanguageOutcome) -> list[str]:
    head = ["parity with the plain loop, float32", "rows", "sub-models", "|Δ NLL|", "|Δ lc|"]
    rows = [
        [
            f"{one.family} family",
            str(one.rows),
            str(one.sub_models),
            f"{one.nll_difference:.1e}",
            f"{one.lc_difference:.1e}",
        ]
        for one in outcome.compared
    ]
    return aligned([head, *rows])


def _speed(outcome: LanguageOutcome) -> list[str]:
    rows = [["the same rows, in turns", "tokens/s", "× the loop", "padding", "computed"]]
    for one in outcome.compared:
        rows.append(
            [f"{one.family}, plain loop", f"{one.tokens_per_second('loop'):,.0f}", "", "", ""]
        )
        for way in ("float32", "auto"):
            rows.append(
                [
                    f"{one.family}, engine, {one.auto_dtype if way == 'auto' else way}",
                    f"{one.tokens_per_second(way):,.0f}",
                    f"{one.times_faster(way):.1f}×",
                    f"{one.padding:.1%}",
                    f"{one.computed:.0%}",
                ]
            )
    return aligned(rows)


def _examples(outcome: LanguageOutcome) -> list[str]:
    rows = [["what the sub-models expect most, and least", "answer", "lc"]]
    for lc, row in [*outcome.easiest, *reversed(outcome.hardest)]:
        rows.append([_short(row["prompt"]), _short(row["completion"]), f"{lc:.3f}"])
    return aligned(rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
