"""A scorer of instruction rows that another framework holds in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from lc_engine.data.protocols import RowScores


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

    def score(self, rows: list[dict[str, Any]]) -> RowScores:
        """Score rows, the fields of each by name; an invalid one gets a status, as in `lc.score`.

        Raises:
            ValueError: the form of the rows is ambiguous.
        """
        source = self.scorer.transform.open_source(rows, self.form)
        return self.scorer.score_rows(next(iter(source.batches(len(rows)))))
