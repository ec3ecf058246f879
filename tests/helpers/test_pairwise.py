from __future__ import annotations

from itertools import product

import pytest

from helpers.pairwise import covering, pairs_of


def rows_of(*sizes: int) -> list[dict[str, int]]:
    names = "abcdefgh"[: len(sizes)]
    return [dict(zip(names, values, strict=True)) for values in product(*map(range, sizes))]


@pytest.mark.parametrize(
    ("sizes", "most"),
    [((3,), 3), ((3, 4), 12), ((2, 2, 2), 5), ((7, 2, 2, 2, 5), 40), ((4, 4, 4, 4, 4), 30)],
)
def test_every_pair_of_values_is_held_by_few_rows(sizes: tuple[int, ...], most: int) -> None:
    rows = rows_of(*sizes)
    chosen = covering(rows)
    held = {pair for index in chosen for pair in pairs_of(rows[index])}
    assert held == {pair for row in rows for pair in pairs_of(row)}
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= most
    assert covering(rows) == chosen


def test_only_combinations_that_are_there_are_chosen() -> None:
    rows = [row for row in rows_of(3, 3, 3) if row["a"] != row["b"]]
    held = {pair for index in covering(rows) for pair in pairs_of(rows[index])}
    assert held == {pair for row in rows for pair in pairs_of(row)}


def test_rows_without_a_pair() -> None:
    assert covering([]) == []
    assert covering([{"a": 1}, {"a": 2}, {"a": 1}]) == [0, 1]
    assert covering([{}, {}]) == [0]
