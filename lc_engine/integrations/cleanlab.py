"""cleanlab: hard rows as an issue of `Datalab`.

register_issue_manager()
lab.find_issues(issue_types={"learning_complexity": {"lc": scores.column("lc")}})
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lc_engine._util.extras import require

ISSUE = "learning_complexity"
_THRESHOLD = 0.1


def register_issue_manager() -> type:
    """Register the issue "learning_complexity" with Datalab and return its class.

    `find_issues` takes `lc`, (N,) scores in the order of the data, high = easy, and `threshold`,
    the lc below which a row is an issue (default 0.1). cleanlab's score of the issue is lc: 0 is
    worst. A row without a score gets 0 and is an issue.

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    base: Any = require("cleanlab.datalab.internal.issue_manager", "cleanlab").IssueManager
    factory = require("cleanlab.datalab.internal.issue_manager_factory", "cleanlab")
    pandas = require("pandas", "cleanlab")

    class LearningComplexityIssueManager(base):  # type: ignore[misc]
        """Rows of low mean confidence over the sub-models."""

        description = (
            "Rows to whose label the sub-models of a pre-trained model give a low probability: "
            "hard, rare, or mislabeled."
        )
        issue_name = ISSUE
        verbosity_levels = {0: [], 1: ["threshold"], 2: []}  # noqa: RUF012

        def find_issues(self, lc: Any = None, threshold: float = _THRESHOLD, **kwargs: Any) -> None:
            rows = len(self.datalab.data)
            scores = np.nan_to_num(np.asarray(lc, dtype=np.float64), nan=0.0)
            if scores.shape != (rows,):
                raise ValueError(
                    f"lc must hold a score per row, shape ({rows},), got {scores.shape}: pass "
                    f'issue_types={{"{ISSUE}": {{"lc": scores.column("lc")}}}}'
                )
            self.issues = pandas.DataFrame(
                {f"is_{ISSUE}_issue": scores < threshold, self.issue_score_key: scores}
            )
            self.summary = self.make_summary(score=float(scores.mean()))
            self.info = {"threshold": threshold}

    factory.register(LearningComplexityIssueManager)
    return LearningComplexityIssueManager
