"""log p of a sample of rows, by which a learning path is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.subset import Subset

if TYPE_CHECKING:
    import numpy as np
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
    scorer.check(source)
    # Decoded once: the head learns from the rows that are scored.
    sample = CachedSource(Subset.spread(source, samples), _CACHE_BYTES)
    ready = scorer.fitted(sample, None, samples, None)
    found = [ready.score_rows(batch).scores.log_probs for batch in sample.batches(samples)]
    scored = [part[:, part.isfinite().all(0)] for part in found if part is not None]
    if not any(part.shape[1] for part in scored):
        raise ValueError(f"data: none of {len(sample)} rows could be scored")
    return torch.cat(scored, dim=1).double().numpy()
