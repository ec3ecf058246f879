from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from helpers.token_rows import random_rows
from lc_engine._util.length_cuts import length_cuts
from lc_engine.language.batching import pack, usage_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_every_target_is_there_once(share, budget):
    rows = random_rows(0)
    found = {}
    for group in pack(rows, budget, 8, share, CPU):
        for batch in group.batches:
            assert batch.ids.numel() <= max(budget, batch.ids.shape[1])
            width = batch.ids.shape[1]
            for at, target, i in zip(batch.positions, batch.targets, batch.rows, strict=True):
                line = batch.ids[at // width]
                seen = [*group.prefix.tolist(), *line[: at % width + 1].tolist()]
                assert rows[i].ids[: len(seen)].tolist() == seen  # all tokens before it
                assert rows[i].ids[len(seen)] == target
                assert rows[i].response[len(seen)]
                assert found.setdefault((int(i), len(seen)), True)
    assert len(found) == sum(int(row.response.sum()) for row in rows)


def test_usage_counts_computed_and_padded_tokens():
    rows = random_rows(1)
    groups = pack(rows, 60, 8, True, CPU)
    usage = usage_of(rows, groups)
    assert usage.asked == sum(len(row.ids) - 1 for row in rows)
    assert usage.computed == sum(
        len(group.prefix) + sum(batch.ids.numel() for batch in group.batches) for group in groups
    )
    own = sum(
        len(rows[i].ids) - 1 - len(group.prefix)
        for group in groups
        for batch in group.batches
        for i in set(batch.rows.tolist())
    )
    prefixes = sum(len(group.prefix) for group in groups)
    assert sorted(len(group.prefix) for group in groups) == [0, 20, 25]
    assert usage.padding == usage.computed - own - prefixes
    assert usage.waste == usage.padding / usage.computed


@pytest.mark.parametrize("budget", [1, 12, 30, 1000])
@pytest.mark.parametrize("overhead", [0, 5, 1000])
def test_no_other_cut_costs_less(budget, overhead):
    widths = np.array([11, 9, 9, 8, 5, 2, 2, 1])

    def cost(cuts):
        sizes = [(cut.stop - cut.start) * int(widths[cut.start]) for cut in cuts]
        fits = all(
            size <= budget or cut.stop - cut.start == 1
            for size, cut in zip(sizes, cuts, strict=True)
        )
        return sum(sizes) + overhead * len(cuts) if fits else np.inf

    ways = [
        [slice(a, b) for a, b in itertools.pairwise([0, *borders, 8])]
        for size in range(8)
        for borders in itertools.combinations(range(1, 8), size)
    ]
    assert cost(length_cuts(widths, budget, overhead)) == min(map(cost, ways)) < np.inf
    assert length_cuts(widths[:0], budget, overhead) == []
