from __future__ import annotations

import random

import pytest

from lc_engine.data.sparse_texts import SparseTexts


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_as_the_list_it_stands_for(seed):
    rng = random.Random(seed)
    texts = rng.choices(["ok", "bad", "worse"], [8, 1, 1], k=rng.randrange(1, 30))
    sparse = SparseTexts.of(texts, "ok")
    assert list(sparse) == texts == sparse[:]
    assert sparse == texts
    assert sparse != [*texts, "ok"]
    assert sparse[-1] == texts[-1]
    assert sparse[1:7:2] == texts[1:7:2]
    assert sparse.count("ok") == texts.count("ok")
    assert set(sparse.others) == {i for i, text in enumerate(texts) if text != "ok"}
    for _ in range(10):
        index, text = rng.randrange(-len(texts), len(texts)), rng.choice(["ok", "bad"])
        sparse[index] = texts[index] = text
    assert list(sparse) == texts
    joined = SparseTexts.concat([sparse, texts, SparseTexts(3, "ok")], "ok")
    assert list(joined) == [*texts, *texts, "ok", "ok", "ok"]


def test_a_copy_is_its_own():
    first = SparseTexts(3, "ok", {1: "bad"})
    second = SparseTexts.of(first, "ok")
    second[1] = "ok"
    assert first[1] == "bad"
    assert list(SparseTexts.of(first, "bad")) == list(first)


def test_indices_outside_are_refused():
    sparse = SparseTexts(2, "ok")
    with pytest.raises(IndexError):
        sparse[2]
    with pytest.raises(IndexError):
        sparse[-3] = "bad"
