"""The files as the published code reads them: the steps of its readers are repeated here."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import lc_engine as lc
from lc_engine.integrations.deepcore import deepcore_method
from lc_engine.integrations.released import read_released, write_ccs, write_less, write_released


@pytest.fixture(scope="module")
def table():
    """Real digits, scored by their class means."""
    x, y = load_digits(return_X_y=True)
    features = torch.from_numpy((x / 16).astype(np.float32))
    labels = torch.from_numpy(y.astype(np.int64))
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 10)
    scorer = lc.Scorer(
        head, head="linear", path=lc.LearningPath.geometric(6), masking=lc.Masking(weights="head")
    )
    return lc.score(scorer, (features, labels), return_path=True)


@pytest.fixture(scope="module")
def broken():
    x = torch.ones(4, 3)
    x[2] = torch.nan
    scorer = lc.Scorer(torch.nn.Linear(3, 2), head="linear", masking=lc.Masking(weights="head"))
    return lc.score(scorer, (x, torch.tensor([0, 1, 0, 1])))


def test_ccs_keeps_the_easiest_by_its_own_steps(table, tmp_path):
    write_ccs(table, tmp_path / "data-score.pickle")
    data_score = pickle.loads((tmp_path / "data-score.pickle").read_bytes())
    assert set(data_score) == {"targets", "learning_complexity", "accumulated_margin"}
    # score_monotonic_selection of core/data/Coreset.py, --data-score-descending 1
    order = data_score["learning_complexity"].argsort(descending=True)
    kept = order[: int(0.1 * data_score["targets"].shape[0])]
    want = lc.select(table, 179, "easy", score="lc", by=None)
    assert sorted(kept.tolist()) == want.tolist()
    # mislabel_mask: the lowest are dropped
    worst = data_score["accumulated_margin"].argsort(descending=False)[:50]
    hardest = lc.select(table, 50, "hard", score="lc", by=None)
    assert sorted(worst.tolist()) == hardest.tolist()
    np.testing.assert_array_equal(data_score["targets"], table.column("label"))


def test_ccs_has_no_place_for_rows_without_a_score(broken, tmp_path):
    with pytest.raises(ValueError, match=r"1 rows have no score.*row 2: non_finite"):
        write_ccs(broken, tmp_path / "x.pickle")


@pytest.mark.parametrize(("score", "strategy"), [("loss", "hard"), ("lc", "easy")])
def test_less_takes_the_highest(table, tmp_path, score, strategy):
    path = write_less(table, tmp_path / "out" / "mmlu", "dolly", score)
    assert path == tmp_path / "out" / "mmlu" / "dolly_influence_score.pt"
    scores = torch.load(path, weights_only=True)
    top = torch.topk(scores.float(), 90, dim=0, largest=True).indices
    want = lc.select(table, 90, strategy, score=score, by=None)
    assert sorted(top.tolist()) == want.tolist()


def test_less_never_takes_a_row_without_a_score(broken, tmp_path):
    scores = torch.load(write_less(broken, tmp_path, "x"), weights_only=True)
    assert scores[2] == -torch.inf
    assert scores.isfinite().sum() == 3


def test_the_authors_files_hold_what_finetune_reads(table, tmp_path):
    write_released(table, tmp_path, gamma=0.5, seed=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"0.{i}.npy" for i in range(1, 10)), "ls.npy", "lss.npy"]
    for ratio in (10.0, 30.0, 70.0):  # as --ratio 10 becomes a name there
        kept = np.load(tmp_path / f"{ratio / 100}.npy").astype(int)
        want = lc.select(table, ratio / 100, gamma=0.5, seed=3)
        np.testing.assert_array_equal(kept, want)
    ls, lss = np.load(tmp_path / "ls.npy"), np.load(tmp_path / "lss.npy")
    assert lss.shape == (6, 1797)
    np.testing.assert_allclose(np.average(lss, axis=0), ls, rtol=1e-5)


def test_the_authors_files_can_be_read_back(table, tmp_path):
    write_released(table, tmp_path, gamma=0.5)
    columns = read_released(tmp_path, table.column("label"))
    np.testing.assert_allclose(columns["lc"], table.column("lc"), atol=1e-6)
    np.testing.assert_array_equal(
        lc.select(columns, 0.2, gamma=0.3), lc.select(table, 0.2, gamma=0.3)
    )
    with pytest.raises(ValueError, match=r"ls.npy has shape \(1797,\)"):
        read_released(tmp_path, table.column("label")[:5])


def test_the_authors_files_need_the_path(broken, tmp_path):
    with pytest.raises(ValueError, match="1 rows have no score"):
        write_released(broken, tmp_path)
    scorer = lc.Scorer(torch.nn.Linear(3, 2), head="linear", masking=lc.Masking(weights="head"))
    plain = lc.score(scorer, (torch.ones(4, 3), torch.tensor([0, 1, 0, 1])))
    with pytest.raises(ValueError, match="return_path=True"):
        write_released(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_deepcore_gets_indices_and_scores(table):
    method = deepcore_method(table, gamma=0.5)
    # As its main.py makes and asks a method.
    made = method(range(1797), object(), 0.1, 7, epochs=1, selection_method=None, balance=True)
    found = made.select()
    np.testing.assert_array_equal(found["indices"], lc.select(table, 0.1, gamma=0.5, seed=7))
    np.testing.assert_array_equal(found["scores"], table.column("lc"))
    with pytest.raises(ValueError, match="the data set 5"):
        method(range(5), object())
