from __future__ import annotations

import random

import pytest

from lc_engine.data.sparse_texts import SparseTexts


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_as_the_list_it_stands_for(seed):
    rng = random.Random(seed)
    texts = rng.choices(["ok", "bad", "worse"], [8, 1, 1], k=rng.randrange(1, 30))
    texts_of_rows = SparseTexts.of(texts, "ok")
    assert list(texts_of_rows) == texts == texts_of_rows[:]
    assert texts_of_rows == texts
    assert texts_of_rows != [*texts, "ok"]
    assert texts_of_rows[-1] == texts[-1]
    assert texts_of_rows[1:7:2] == texts[1:7:2]
    assert texts_of_rows.count("ok") == texts.count("ok")
    assert set(texts_of_rows.others) == {i for i, text in enumerate(texts) if text != "ok"}
    for _ in range(10):
        place, text = rng.randrange(-len(texts), len(texts)), rng.choice(["ok", "bad"])
        texts_of_rows[place] = texts[place] = text
    assert list(texts_of_rows) == texts
    joined = SparseTexts.concat([texts_of_rows, texts, SparseTexts(3, "ok")], "ok")
    assert list(joined) == [*texts, *texts, "ok", "ok", "ok"]


def test_a_copy_is_its_own():
    first = SparseTexts(3, "ok", {1: "bad"})
    second = SparseTexts.of(first, "ok")
    second[1] = "ok"
    assert first[1] == "bad"
    assert list(SparseTexts.of(first, "bad")) == list(first)


def test_places_outside_are_refused():
    texts_of_rows = SparseTexts(2, "ok")
    with pytest.raises(IndexError):
        texts_of_rows[2]
    with pytest.raises(IndexError):
        texts_of_rows[-3] = "bad"
