"""`lc-engine select` passes its options to `select` unchanged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from helpers.selection_tables import as_table, random_columns
from lc_engine.cli import main as cli
from lc_engine.selection import select

if TYPE_CHECKING:
    from pathlib import Path

    from lc_engine.data.table import ScoreTable

ROWS, KEEP = 200, 30


@pytest.fixture
def table(tmp_path: Path) -> ScoreTable:
    columns = random_columns(0, ROWS)
    columns["lc"] = columns["lc"][::-1]  # lc and loss disagree, so that a lost option shows
    table = as_table(columns)
    table.write(tmp_path / "scores.parquet")
    return table


def run(folder: Path, *more: str) -> int:
    out = folder / "subset.npy"
    command = ["select", str(folder / "scores.parquet"), "--keep", str(KEEP), "--out", str(out)]
    return cli.run([*command, "--strategy", "hard", *more])


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--floor", "5"], {"floor": 5}),
        (["--cap", "16"], {"cap": 16}),
        (["--noise-guard", "0.2"], {"noise_guard": 0.2}),
        (["--score", "lc"], {"score": "lc"}),
        (
            ["--floor", "3", "--cap", "20", "--noise-guard", "0.1", "--score", "lc"],
            {"floor": 3, "cap": 20, "noise_guard": 0.1, "score": "lc"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_option_reaches_the_selection(
    table: ScoreTable, tmp_path: Path, options: list[str], arguments: dict[str, object]
) -> None:
    assert run(tmp_path, *options) == 0
    kept = np.load(tmp_path / "subset.npy")
    np.testing.assert_array_equal(kept, select(table, KEEP, "hard", **arguments))
    assert not np.array_equal(kept, select(table, KEEP, "hard"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--floor", "-1"], "--floor"),
        (["--cap", "2"], "floor and cap allow"),
        (["--noise-guard", "1.5"], "--noise-guard must lie in [0, 1)"),
        (["--score", "id"], "score must be a column of numbers"),
    ],
)
def test_the_invalid_option_is_named(
    table: ScoreTable, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str],
    message: str,
) -> None:  # fmt: skip
    assert run(tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "subset.npy").exists()


@pytest.mark.parametrize("more", [[], ["--streamed"]])
@pytest.mark.parametrize(
    ("gamma", "method", "said"),
    [
        ("0", "random", "by random (flexrand with gamma 0): "),
        ("1", "random", "by random (flexrand with gamma 1): "),
        ("0.5", "flexrand", "by flexrand with gamma 0.5: "),
        ("auto", None, "flexrand with gamma "),
    ],
)
def test_a_selection_that_ignores_the_score_says_random(
    table: ScoreTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    gamma: str,
    method: str | None,
    said: str,
) -> None:
    more = [*more, "--strategy", "flexrand", "--gamma", gamma]
    assert run(tmp_path, *more) == 0
    line = capsys.readouterr().out
    assert said in line
    assert run(tmp_path, *more, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["strategy"] == "flexrand"
    assert summary["method"] == ("random" if summary["gamma"] in (0, 1) else "flexrand")
    assert method is None or summary["method"] == method
    assert ("by random (" in line) == (summary["method"] == "random")


def test_another_strategy_has_no_gamma(table, tmp_path, capsys):
    assert run(tmp_path, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["strategy"], summary["method"], summary["gamma"]) == ("hard", "hard", None)
