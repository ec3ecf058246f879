"""Options that say which rows are kept, of `lc-engine select` and `prune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lc_engine.cli.choices import Objective, Strategy
from lc_engine.cli.command import in_selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.pruning.choice import Choice

_THOUSANDS = {"k": 10**3, "m": 10**6, "g": 10**9}


def _keep(text: str) -> float:
    if text.strip().endswith("%"):
        try:
            share = f": {float(text.strip()[:-1]) / 100:g} is {text.strip()}"
        except ValueError:
            share = ""
        raise typer.BadParameter(f"{text!r} is not a number{share}")
    return int(text) if text.strip().isdigit() else _number(text)


def _size(text: str) -> int:
    scale = _THOUSANDS.get(text[-1:].lower(), 1)
    number = _number(text if scale == 1 else text[:-1]) * scale
    if number != int(number) or number < 1:
        raise typer.BadParameter(f"{text!r} is not a whole number of at least 1, such as 2M")
    return int(number)


def _gamma(text: str) -> float | Literal["auto"]:
    return "auto" if text == "auto" else _number(text)


def _by(text: str) -> str | None:
    return None if text == "none" else text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


@dataclass(frozen=True, kw_only=True)
class ChoosingOptions:
    """Which rows are kept."""

    keep: Annotated[
        float | None,
        in_selection(
            help="0.1 is 10 %, 5000 is 5,000 rows; 1.0 is everything, 1 is one row.",
            parser=_keep,
            metavar="FRACTION|ROWS",
        ),
    ] = None
    keep_tokens: Annotated[
        int | None,
        in_selection(
            help="Most response tokens, instead of --keep: 2M.", parser=_size, metavar="TOKENS"
        ),
    ] = None
    keep_bytes: Annotated[
        int | None,
        in_selection(
            help="Most bytes of image files or lines of JSON, instead of --keep: 500M.",
            parser=_size,
            metavar="BYTES",
        ),
    ] = None
    strategy: Annotated[
        Strategy,
        in_selection(
            help="How rows are chosen; auto tries strategies out, where there are features."
        ),
    ] = "auto"
    gamma: Annotated[
        float | Literal["auto"],
        in_selection(
            help="FlexRand's split between easy and hard, in [0, 1].",
            parser=_gamma,
            metavar="NUMBER|auto",
        ),
    ] = "auto"
    by: Annotated[
        str | None,
        in_selection(
            help="Column whose values share the budget: of the scores, or of the data.",
            parser=_by,
            metavar="COLUMN|none",
        ),
    ] = "label"
    share: Annotated[
        list[str] | None,
        in_selection(
            help="Share of the budget of one value of --by; repeat it.", metavar="VALUE=SHARE"
        ),
    ] = None
    score: Annotated[
        str,
        in_selection(
            help="Column of numbers that tells easy from hard: loss, lc, ifd or margin.",
            metavar="COLUMN",
        ),
    ] = "loss"
    floor: Annotated[int | None, in_selection(min=0, help="Least rows of each group.")] = None
    cap: Annotated[int | None, in_selection(min=0, help="Most rows of each group.")] = None
    noise_guard: Annotated[
        float, in_selection(help="Share of each group to set aside first: likely wrong labels.")
    ] = 0.0
    balance: Annotated[
        float | None,
        in_selection(
            min=0.0,
            max=1.0,
            help="Groups share the budget as rows^NUMBER: 1 as the data are, 0 equally.",
            metavar="NUMBER",
            show_default="1; by a trial with --strategy auto",
        ),
    ] = None
    objective: Annotated[
        Objective,
        in_selection(
            help="What trials maximize: the mean of the classes' accuracies, or that of the rows."
        ),
    ] = "balanced"
    always_keep: Annotated[
        Path | None,
        in_selection(help="Ids that are kept in any case: .npy, or text with one per line."),
    ] = None
    never_keep: Annotated[Path | None, in_selection(help="Ids that are left out, likewise.")] = None
    unscored: Annotated[
        Literal["drop", "keep"],
        in_selection(help="What becomes of rows without a score, where rows are written."),
    ] = "drop"
    seed: Annotated[int, in_selection(min=0, help="Seed of every draw.")] = 0

    def choice(self, carry: str | None = None) -> Choice:
        """Return the arguments of the selection.

        Raises:
            ValueError: one that does not fit.
            FileNotFoundError: a file of ids that is not there.
        """
        from lc_engine.data.readers.id_files import read_ids
        from lc_engine.pruning.choice import Choice

        made = Choice(
            keep=self.keep,
            keep_tokens=self.keep_tokens,
            keep_bytes=self.keep_bytes,
            strategy=self.strategy,
            gamma=self.gamma,
            by=self.by,
            carry=tuple(name.strip() for name in (carry or "").split(",") if name.strip()),
            seed=self.seed,
            score=self.score,
            floor=self.floor,
            cap=self.cap,
            shares=_shares(self.share or ()),
            noise_guard=self.noise_guard,
            balance=self.balance,
            objective=self.objective,
            always=() if self.always_keep is None else read_ids(self.always_keep),
            never=() if self.never_keep is None else read_ids(self.never_keep),
            unscored=self.unscored,
        )
        made.check()
        return made

    @property
    def budget(self) -> str:
        """The budget, as the option that gives it."""
        if self.keep is not None:
            return f"--keep {self.keep}"
        if self.keep_tokens is not None:
            return f"--keep-tokens {self.keep_tokens}"
        return f"--keep-bytes {self.keep_bytes}"


def _shares(given: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, share in map(_share, given):
        if name in found:
            raise ValueError(f"--share: {name} has two, {found[name]:g} and {share:g}: give one")
        found[name] = share
    return found


def _share(text: str) -> tuple[str, float]:
    name, equals, share = text.rpartition("=")
    try:
        return name, float(share if equals else "")
    except ValueError:
        raise ValueError(f"--share {text} must be VALUE=SHARE, such as math=0.5") from None
