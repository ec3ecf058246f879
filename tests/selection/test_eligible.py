from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from helpers.selection_tables import as_table, random_columns, shuffled
from lc_engine.selection import select
from lc_engine.selection.eligible import read_eligible_rows
from lc_engine.selection.id_hash import hash_ids

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", [False, True])
def test_a_score_table_and_a_mapping_give_the_same(text: bool) -> None:
    scores = random_columns(1, 120)
    if text:
        scores["id"] = np.array([f"cats/{i}.png" for i in scores["id"]])
    scores["status"] = np.where(np.arange(120) % 7 == 0, "unreadable", "ok")
    kept = select(scores, 0.3, gamma=0.2)
    np.testing.assert_array_equal(select(as_table(scores), 0.3, gamma=0.2).astype(kept.dtype), kept)
    assert len(kept) == round(0.3 * (scores["status"] == "ok").sum()), "only ok rows count"
    bad = scores["id"][scores["status"] != "ok"]
    assert not np.isin(kept, bad).any()


def test_a_bad_row_may_hold_anything() -> None:
    scores = random_columns(2, 30)
    scores["status"] = np.array(["ok"] * 29 + ["non_finite"])
    scores["loss"][29] = np.nan
    scores["label"][29] = -1
    assert len(select(scores, 1.0, "hard")) == 29
    assert -1 not in read_eligible_rows(scores).group_names


@pytest.mark.parametrize("ids", [np.arange(500), np.array([f"día/{i}" for i in range(500)])])
def test_the_order_of_rows_is_that_of_their_ids_alone(ids: np.ndarray) -> None:
    scores = random_columns(3, 500) | {"id": ids}
    rows = read_eligible_rows(scores)
    other = read_eligible_rows(shuffled(scores, 1)[0])
    np.testing.assert_array_equal(rows.ids, other.ids)
    np.testing.assert_array_equal(rows.ids, ids[rows.indices])
    # Mixed up: neighbours by id do not stay together.
    assert abs(np.corrcoef(np.arange(500), rows.indices)[0, 1]) < 0.2


def test_the_hash_does_not_depend_on_how_text_is_stored() -> None:
    words = ["a", "ab", "", "déjà", "x" * 50, "a\x01"]
    narrow = hash_ids(np.array(words))
    wide = hash_ids(np.array(words, dtype="<U80"))
    objects = hash_ids(np.array(words, dtype=object))
    np.testing.assert_array_equal(narrow, wide)
    np.testing.assert_array_equal(narrow, objects)
    assert len(set(narrow.tolist())) == len(words)
    # The values themselves are part of the contract: a subset must not change with a version.
    assert hash_ids(np.array([0, 1])).tolist() == [16294208416658607535, 10451216379200822465]


def test_groups_are_numbered_in_ascending_order() -> None:
    for values in (
        np.array([7, -2, 7, 40]),
        np.array([7, -2, 7, 10**12]),
        np.array([1.5, -2, 1.5, 9]),
    ):
        rows = read_eligible_rows({"id": np.arange(4), "part": values}, "part")
        assert rows.group_names.tolist() == sorted(set(values.tolist()))
        np.testing.assert_array_equal(rows.group_names[rows.groups], values[rows.indices])
    words = np.array(["b", "a", "b", "c"], dtype=object)
    rows = read_eligible_rows({"id": np.arange(4), "part": words}, "part")
    assert rows.group_names.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": [1, 2, 2]}, "holds 2 more than once"),
        ({"id": ["b", "a", "b"]}, "holds 'b' more than once"),
        ({"id": [1.0, 2.0, 3.0]}, "integers or text"),
        ({"id": [[1], [2], [3]]}, "one-dimensional"),
        ({"loss": [1.0, 2.0]}, 'column "loss" has 2 rows but "id" has 3'),
        ({"loss": [1.0, float("nan"), 0.0]}, 'column "loss" is NaN at id 5'),
        ({"status": ["bad", "bad", "bad"]}, "no row with status"),
        ({"id": []}, "has 3 rows but"),
    ],
)
def test_bad_tables_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    scores: dict[str, Any] = {"id": [4, 5, 6], "label": [0, 1, 0], "loss": [1.0, 2.0, 3.0]}
    with pytest.raises(ValueError, match=message):
        select(scores | change, 1, "easy")


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match='no column "loss"; it has id, label'):
        select({"id": [1], "label": [0]}, 1, "easy")
    with pytest.raises(ValueError, match='no column "shard"; it has id, label'):
        select({"id": [1], "label": [0]}, 1, "random", by="shard")
    with pytest.raises(ValueError, match='no column "id"'):
        select({"label": [0]}, 1, "random")
    with pytest.raises(ValueError, match='no column "shard"; it has id, label, lc'):
        select(as_table(random_columns(0, 5)), 1, "random", by="shard")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 0.5, 1.0], 'column "label" is 0.5 at id 5: a class is a name or a whole number'),
        ([0.0, np.nan, 1.0], 'column "label" is nan at id 5'),
        (["a", None, "b"], 'column "label" is None at id 5'),
    ],
)
def test_a_label_that_is_no_class_is_refused(labels: list[Any], message: str) -> None:
    rows = read_eligible_rows({"id": [4, 5, 6], "label": labels}, None)
    with pytest.raises(ValueError, match=message):
        rows.labels()


def test_labels_are_numbers_of_classes() -> None:
    for labels, want in (
        ([2, -1, 2], [2, -1, 2]),
        ([2.0, -1.0, 2.0], [2, -1, 2]),
        (np.array([2, -1, 2], object), [2, -1, 2]),
        (["b", "a", "b"], [1, 0, 1]),
    ):
        rows = read_eligible_rows({"id": [4, 5, 6], "label": labels}, None)
        assert rows.labels().tolist() == np.array(want)[rows.indices].tolist()


def test_features_of_any_kind_are_read_alike(tmp_path: Path) -> None:
    exact = np.random.default_rng(0).integers(-9, 9, (30, 4)).astype(np.float32)
    np.save(tmp_path / "features.npy", exact)
    rows = read_eligible_rows(random_columns(0, 30))
    tensor = torch.tensor(exact, requires_grad=True)
    for features in (
        *(exact.astype(kind) for kind in (np.float16, np.float64, np.int64)),
        np.asfortranarray(exact),
        np.repeat(exact, 2, 1)[:, ::2],
        np.load(tmp_path / "features.npy", mmap_mode="r"),
        exact.tolist(),
        tensor,
        tensor.bfloat16(),
    ):
        np.testing.assert_array_equal(rows.align(features), exact[rows.indices])


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300, -1e13])
def test_features_that_sums_cannot_hold_are_refused(value: float) -> None:
    columns = random_columns(0, 30)
    features = np.zeros((30, 4))
    features[7, 2] = value
    with pytest.raises(ValueError, match=f"features is not finite at id {columns['id'][7]}, or"):
        read_eligible_rows(columns).align(features)
    columns["status"] = np.where(np.arange(30) == 7, "non_finite", "ok")
    assert read_eligible_rows(columns).align(features).shape == (29, 4)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((30, 0)), r"one row per row of scores \(30\), got shape \(30, 0\)"),
        (np.zeros((30, 2), complex), "features must be real numbers, got complex128"),
        (np.full((30, 2), "0"), "features must be real numbers, got <U1"),
    ],
)
def test_features_of_another_form_are_refused(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_eligible_rows(random_columns(0, 30)).align(features)
