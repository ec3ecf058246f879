from __future__ import annotations

import random

import pytest

from lc_engine.data.mostly import Mostly


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_as_the_list_it_stands_for(seed):
    rng = random.Random(seed)
    texts = rng.choices(["ok", "bad", "worse"], [8, 1, 1], k=rng.randrange(1, 30))
    mostly = Mostly.of(texts, "ok")
    assert list(mostly) == texts == mostly[:]
    assert mostly == texts
    assert mostly != [*texts, "ok"]
    assert mostly[-1] == texts[-1]
    assert mostly[1:7:2] == texts[1:7:2]
    assert mostly.count("ok") == texts.count("ok")
    assert set(mostly.others) == {i for i, text in enumerate(texts) if text != "ok"}
    for _ in range(10):
        place, text = rng.randrange(-len(texts), len(texts)), rng.choice(["ok", "bad"])
        mostly[place] = texts[place] = text
    assert list(mostly) == texts
    joined = Mostly.concat([mostly, texts, Mostly(3, "ok")], "ok")
    assert list(joined) == [*texts, *texts, "ok", "ok", "ok"]


def test_a_copy_is_its_own():
    first = Mostly(3, "ok", {1: "bad"})
    second = Mostly.of(first, "ok")
    second[1] = "ok"
    assert first[1] == "bad"
    assert list(Mostly.of(first, "bad")) == list(first)


def test_places_outside_are_refused():
    mostly = Mostly(2, "ok")
    with pytest.raises(IndexError):
        mostly[2]
    with pytest.raises(IndexError):
        mostly[-3] = "bad"
