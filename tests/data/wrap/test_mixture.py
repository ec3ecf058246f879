from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.images import encode
from lc_engine.data.locations import absolute_location, folders_of, named_locations
from lc_engine.data.open import open_source
from lc_engine.data.wrap.mixture import Mixture
from lc_engine.data.wrap.subset import Subset


def arrays(rows, seed=0, width=3):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((rows, width)).astype(np.float32))
    return x, torch.from_numpy(rng.integers(0, 4, rows))


def folder(root, classes, count=2):
    for label, name in enumerate(classes):
        for row in range(count):
            path = root / name / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(np.full((4, 4, 3), 10 * label + row, np.uint8)))
    return root


@pytest.mark.parametrize(
    ("size", "start", "stop"), [(4, 0, None), (3, 2, 15), (7, 6, 12), (50, 0, 0)]
)
def test_batches_are_those_of_the_rows_after_each_other(size, start, stop):
    one, two, three = arrays(5), arrays(1, 1), arrays(10, 2)
    mixed = open_source({"a": one, "b": two, "c": three})
    stop = 16 if stop is None else stop
    found = list(mixed.batches(size, start, stop))
    assert [len(batch) for batch in found] == [
        min(size, stop - at) for at in range(start, stop, size)
    ]
    if not found:
        return
    x = torch.cat([one[0], two[0], three[0]])[start:stop]
    torch.testing.assert_close(torch.cat([batch.inputs for batch in found]), x, rtol=0, atol=0)
    names = [f"a/{i}" for i in range(5)] + ["b/0"] + [f"c/{i}" for i in range(10)]
    assert np.concatenate([batch.ids for batch in found]).tolist() == names[start:stop]
    sources = np.concatenate([batch.sources for batch in found]).tolist()
    assert sources == [name[0] for name in names[start:stop]]


def test_classes_go_by_their_names(tmp_path):
    first = folder(tmp_path / "one", ["bee", "cat"])
    second = folder(tmp_path / "two", ["ant", "cat"])
    mixed = open_source(
        {"one": first, "two": second}, transform=lambda image: torch.tensor(image.getpixel((0, 0)))
    )
    assert mixed.classes == ["bee", "cat", "ant"]
    (batch,) = mixed.batches(8)
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 1, 1]
    assert batch.ids[4] == "two/ant/0.png"
    assert folders_of(mixed) == (first, second)
    with pytest.raises(ValueError, match="b numbers its classes, other sources name them"):
        open_source({"one": first, "b": arrays(3)})


def test_sources_that_one_model_cannot_score_are_refused(tmp_path):
    for other in (
        arrays(4, width=5),
        (torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4).long()),
    ):
        mixed = open_source({"a": arrays(4), "b": other})
        with pytest.raises(ValueError, match=r"a row of a is 3 float32, one of b .*run them apart"):
            next(iter(mixed.batches(8)))


def test_the_digest_is_of_names_and_rows():
    mixed = [{"a": arrays(5), "b": arrays(4)}, {"a": arrays(5), "c": arrays(4)}]
    mixed += [{"b": arrays(4), "a": arrays(5)}, {"a": arrays(5), "b": arrays(4, 1)}]
    assert len({open_source(one).digest() for one in mixed}) == 4
    assert open_source(mixed[0]).digest() == open_source(mixed[0]).digest()


def test_rows_are_divided_among_their_sources_and_a_subset_reads_across_them():
    mixed = Mixture({"a": open_source(arrays(5)), "b": open_source(arrays(4))})
    rows = np.array([1, 4, 5, 8])
    found = {name: part.tolist() for name, part in mixed.rows_of(rows)}
    assert found == {"a": [1, 4], "b": [0, 3]}
    (batch,) = Subset(mixed, rows).batches(9)
    assert batch.sources.tolist() == ["a", "a", "b", "b"]
    assert batch.rows(1, 3).sources.tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["", "a/b", "..", 3])
def test_a_name_that_no_folder_can_have_is_refused(name):
    with pytest.raises(ValueError, match="a source's name becomes a folder"):
        open_source({name: arrays(3)})


def test_locations_go_by_the_name_that_they_are_given_or_that_of_their_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl.gz", "b.jsonl", "c=d.jsonl"):
        (tmp_path / name).touch()
    assert named_locations(["b.jsonl"]) == "b.jsonl"
    assert named_locations(["c=d.jsonl"]) == "c=d.jsonl"
    assert named_locations(["a.jsonl.gz", "x=b.jsonl"]) == {"a": "a.jsonl.gz", "x": "b.jsonl"}
    assert absolute_location("x=b.jsonl") == f"x={tmp_path}/b.jsonl"
    assert absolute_location("c=d.jsonl") == f"{tmp_path}/c=d.jsonl"
    assert absolute_location("OWNER/NAME") == "OWNER/NAME"
    with pytest.raises(ValueError, match="both go by the name b: write NAME=PATH"):
        named_locations(["b.jsonl", "b=a.jsonl.gz"])
