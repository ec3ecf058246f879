"""log p of a sample of rows, by which a learning path is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from lc_engine.data.wrap.cache import DecodedRows
from lc_engine.data.wrap.subset import ChosenRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import RowScorer

_CACHE_BYTES: Final = 1 << 30


def sample_log_probs(scorer: RowScorer, source: Source, samples: int) -> NDArray[np.float64]:
    """Return log p (K, M) of up to `samples` evenly spaced rows, those that can be scored.

    Args:
        scorer: it is not changed; a head that learns from the data learns from the sample.
        source: the data.
        samples: most rows that are read.

    Raises:
        ValueError: data that the scorer cannot score; no row that can be scored.
    """
    rows = np.linspace(0, len(source) - 1, min(samples, len(source))).round().astype(np.intp)
    # Decoded once: the head learns from the rows that are scored.
    sample = DecodedRows(ChosenRows(source, rows), _CACHE_BYTES)
    scorer.check(sample)
    ready = scorer.fitted(sample, None, samples, None)
    found = [ready.score_rows(batch).scores.log_probs for batch in sample.batches(samples)]
    log_probs = torch.cat([part for part in found if part is not None], dim=1)
    scored = log_probs[:, log_probs.isfinite().all(0)]
    if not scored.shape[1]:
        raise ValueError(f"data: none of {len(sample)} rows could be scored")
    return scored.double().numpy()
