"""Scores as the fields that adapters add to a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lc_engine.data.batch import OK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.protocols import RowScores

STATUS = "lc_status"
FIELDS = ("lc", "loss", STATUS)
# What the scores of a sample were computed from: see `TextScorer.digest`.
DIGEST = "lc_digest"


def score_fields(scored: RowScores) -> Iterator[dict[str, Any]]:
    """Yield the FIELDS of each row, with None for the scores of a row whose status is not "ok"."""
    scores = scored.scores
    for lc, loss, status in zip(
        scores.lc.tolist(), scores.loss.tolist(), scored.status, strict=True
    ):
        ok = status == OK
        yield {"lc": lc if ok else None, "loss": loss if ok else None, STATUS: status}
