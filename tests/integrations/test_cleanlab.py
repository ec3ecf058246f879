from __future__ import annotations

import numpy as np
import pytest
import torch

import lc_engine as lc

cleanlab = pytest.importorskip(
    "cleanlab", reason="cleanlab is not installed: make test-integrations"
)
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def table(digits):
    """Real digits of which 20 have a wrong label, scored by a head of their class means."""
    features, y = digits[0], digits[1].clone()
    y[:20] = (y[:20] + 1) % 10
    means = torch.stack([features[y == c].mean(0) for c in range(10)])
    head = torch.nn.Linear(64, 10)
    with torch.no_grad():
        head.weight.copy_(means)
        head.bias.copy_(-means.square().sum(1) / 2)
    scorer = lc.Scorer(head, head="linear", masking=lc.Masking(weights="head"))
    return lc.score(scorer, (features, y))


@pytest.fixture
def lab(table):
    from cleanlab import Datalab

    from lc_engine.integrations.cleanlab import register_issue_manager

    register_issue_manager()
    rows = {"x": np.arange(len(table)), "label": table.column("label")}
    return Datalab(rows, label_name="label")


def test_hard_rows_are_an_issue_of_datalab(lab, table, capsys):
    scores = table.column("lc")
    lab.find_issues(issue_types={"learning_complexity": {"lc": scores, "threshold": 0.05}})
    found = lab.get_issues("learning_complexity")
    np.testing.assert_allclose(found["learning_complexity_score"], scores)
    issues = found["is_learning_complexity_issue"].to_numpy()
    np.testing.assert_array_equal(issues, scores < 0.05)
    assert 10 <= issues.sum() < 200
    assert issues[:20].mean() > 5 * issues[20:].mean(), "wrong labels score as hard"
    lab.report()
    assert "learning_complexity" in capsys.readouterr().out


def test_rows_without_a_score_are_issues(lab, table):
    scores = table.column("lc").copy()
    scores[7] = np.nan
    lab.find_issues(issue_types={"learning_complexity": {"lc": scores}})
    assert lab.get_issues("learning_complexity")["is_learning_complexity_issue"][7]


def test_scores_of_other_rows_are_refused():
    from types import SimpleNamespace

    from lc_engine.integrations.cleanlab import register_issue_manager

    manager = register_issue_manager()(SimpleNamespace(data=range(4)))
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        manager.find_issues(lc=np.ones(3))
