from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import lc_engine as lc
from lc_engine.data.label_range import check_labels_begin_at_0, labels_outside

X = np.random.default_rng(3).standard_normal((12, 5)).astype(np.float32)
FROM_1 = np.arange(12) % 4 + 1


def scorer():
    torch.manual_seed(1)
    path, masking = lc.LearningPath.explicit([1.0]), lc.Masking(weights="head")
    return lc.Scorer(nn.Linear(5, 4), head="linear", path=path, masking=masking)


@pytest.mark.parametrize("labels", [FROM_1, np.where(FROM_1 == 2, -1, FROM_1), [1, 4]])
def test_labels_from_1_are_refused(labels):
    with pytest.raises(ValueError, match=r"1…4, but the 4 classes of the head are 0…3"):
        check_labels_begin_at_0(np.asarray(labels), 4)


@pytest.mark.parametrize("labels", [[], [-1, -1], [0, 1, 4], [1, 3], [2, 4], [1, 5], [-2, 4]])
def test_other_labels_are_not_refused(labels):
    check_labels_begin_at_0(np.array(labels, np.int64), 4)


@pytest.mark.parametrize("labels", [[], [-1], [0, 3, -1], [1, 2, 3]])
def test_labels_that_the_head_knows_are_no_warning(labels):
    assert labels_outside(np.array(labels, np.int64), 4) is None


def test_the_warning_names_labels_classes_cause_and_remedy():
    text = labels_outside(np.array([0, 4, -1, -7, 4]), 4)
    assert text.startswith("3 of 5 rows have a label without a class in the head (-7, 4): the")
    assert "the labels are -7…4, the 4 classes of the head 0…3" in text
    assert "rows of the other labels may have been scored against the wrong class" in text
    assert "np.unique(labels, return_inverse=True)[1]" in text
    many = labels_outside(np.arange(20), 4)
    assert "(4, 5, 6, 7, 8, …)" in many
    none_is_0 = labels_outside(np.array([2, 3, 4]), 4)
    assert "all other rows were scored against another class than their own" in none_is_0


def test_arrays_of_labels_from_1_are_refused_before_scoring(tmp_path):
    with pytest.raises(ValueError, match=r"pass labels - 1"):
        lc.score(scorer(), (X, FROM_1), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    table = lc.score(scorer(), (X, FROM_1 - 1))
    assert table.status_counts() == {"ok": 12}


def test_other_labels_outside_are_one_warning_after_scoring(caplog, tmp_path):
    labels = FROM_1 - 1
    labels[2], labels[5] = 7, -3
    with caplog.at_level(logging.WARNING, "lc_engine"):
        table = lc.score(scorer(), (X, labels), batch_size=2)
    assert table.status_counts() == {"ok": 10, "bad_label": 2}
    (record,) = caplog.records
    assert "2 of 12 rows have a label without a class in the head (-3, 7)" in record.getMessage()
    # Of a file whose labels are read as they are scored, it is known no earlier.
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"features": X.tolist(), "label": FROM_1}), file)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lc_engine"):
        table = lc.score(scorer(), file)
    assert table.status_counts() == {"ok": 9, "bad_label": 3}
    (record,) = caplog.records
    assert "all other rows were scored against another class" in record.getMessage()


def test_a_head_that_learns_its_classes_takes_any_labels(caplog):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    with caplog.at_level(logging.WARNING, "lc_engine"):
        table = lc.score(lc.Scorer(model), (X, FROM_1))
    assert table.status_counts() == {"ok": 12}
    assert not [one for one in caplog.records if "head" in one.getMessage()]
