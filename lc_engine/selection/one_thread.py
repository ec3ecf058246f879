"""One thread for products and k-means, so that a selection does not depend on their number."""

from __future__ import annotations

import functools
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Limit products and k-means to one thread: sums have one order, and small ones do not wait."""
    if find_spec("threadpoolctl") is None:  # it comes with scikit-learn, so there is no k-means
        return nullcontext()
    limits: AbstractContextManager[object] = _libraries("sklearn" in sys.modules).limit(limits=1)
    return limits


@functools.cache
def _libraries(with_k_means: bool) -> Any:
    """Return the threaded libraries; looking for them takes as long as a small choice."""
    return require("threadpoolctl", "select").ThreadpoolController()
