"""A scorer of instruction rows that another framework holds in memory."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from lc_engine._util.digests import config_digest
from lc_engine.data.batch import Batch
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lc_engine.data.protocols import RowScores

_NO_ROWS: Final = Batch(np.empty(0, np.int64), [], torch.empty(0, dtype=torch.int64), [], [])


class TextScorer:
    """A language model by name: small to pickle, loaded by the process that first scores.

    Args:
        model: a folder, GGUF file or repository; see `LanguageModelSpec`.
        path: such as "gauss:8:0.7:1.0"; None is the default of `CausalLMScorer`.
        form: of the rows, if their fields are ambiguous.
        dtype: of the weights.
        device: where the model is loaded to.
    """

    def __init__(
        self,
        model: str,
        path: str | None = None,
        form: str | None = None,
        dtype: str = "auto",
        device: str = "cpu",
    ) -> None:
        self.form = form
        self.scorer = CausalLMScorer(
            LanguageModelSpec(model, cast("Any", dtype), device),
            path=None if path is None else LearningPath.parse(path),
        )

    @cached_property
    def _identity(self) -> str:
        return config_digest({"scorer": self.scorer.describe(), "form": self.form})

    def digest(self, row: Mapping[str, Any]) -> str:
        """Return what identifies the score of a row: model, masks, path, form and the row."""
        fields = json.dumps(row, sort_keys=True, default=repr)
        return hashlib.sha256(f"{self._identity}\n{fields}".encode()).hexdigest()

    def score(self, rows: list[dict[str, Any]]) -> RowScores:
        """Score rows, the fields of each by name; an invalid one gets a status, as in `lc.score`.

        Raises:
            ValueError: the form of the rows is ambiguous.
        """
        if not rows:  # which have no form either
            return self.scorer.score_rows(_NO_ROWS)
        source = self.scorer.transform.open_source(rows, self.form)
        return self.scorer.score_rows(next(iter(source.batches(len(rows)))))
