"""Score tables without rows, or without a row that has a score, through the adapters of files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset

import lc_engine as lc
from lc_engine.integrations.ccs import write_ccs
from lc_engine.integrations.deepcore import deepcore_method
from lc_engine.integrations.files import write_subset
from lc_engine.integrations.hf import subset, with_scores
from lc_engine.integrations.less import write_less
from lc_engine.integrations.released import write_released


@pytest.fixture(scope="module")
def bad():
    """Four rows, all of NaN."""
    path, masking = lc.LearningPath.explicit([1.0, 0.5]), lc.Masking(weights="head")
    scorer = lc.Scorer(torch.nn.Linear(3, 2), head="linear", path=path, masking=masking)
    rows = torch.full((4, 3), torch.nan), torch.tensor([0, 1, 0, 1])
    return lc.score(scorer, rows, return_path=True)


@pytest.fixture(scope="module")
def empty(bad):
    return lc.ScoreTable(bad.table.slice(0, 0))


def test_nothing_to_select_is_an_error_and_no_file(bad, empty, tmp_path):
    for table in (bad, empty):
        with pytest.raises(ValueError, match="there is nothing to keep"):
            write_less(table, tmp_path / "less", "name")
        with pytest.raises(ValueError, match=r"there is nothing to keep|4 rows have no score"):
            write_released(table, tmp_path / "released")
        with pytest.raises(ValueError, match="there is nothing to keep"):
            deepcore_method(table)(range(len(table)), None, 1.0).select()
    with pytest.raises(ValueError, match="4 rows have no score"):
        write_ccs(bad, tmp_path / "ccs.pickle")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_without_rows_has_the_columns(bad, empty):
    columns = ["a", "lc", "loss", "lc_std", "status"]
    for table in (bad, empty):
        dataset = Dataset.from_dict({"a": np.arange(len(table))})
        scored = with_scores(dataset, table)
        assert (scored.column_names, len(scored)) == (columns, len(table))
        assert scored.features["lc"].dtype == "float32"
        assert len(subset(dataset, [])) == 0


def test_no_row_is_a_file_of_no_rows(empty, tmp_path):
    write_ccs(empty, tmp_path / "ccs.pickle")
    scores = pickle.loads((tmp_path / "ccs.pickle").read_bytes())
    assert {name: len(values) for name, values in scores.items()} == {
        "targets": 0,
        "learning_complexity": 0,
        "accumulated_margin": 0,
    }
    (tmp_path / "data.json").write_text("[]")
    assert write_subset(tmp_path / "data.json", [], tmp_path / "out.json") == 0
    assert (tmp_path / "out.json").read_text() == "[]\n"
