"""A conversation as token ids, with a mask of the response."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor


class Tokens(NamedTuple):
    """One conversation as a model reads it.

    Attributes:
        ids: (T,) int64 token ids, up to the last target.
        response: (T,) bool, which of them are targets; never the first.
        inputs: of a conversation with images, what the whole model takes beside the ids, each with
            a first dimension of one row or of its images; None without images.
    """

    ids: np.ndarray
    response: np.ndarray
    inputs: Mapping[str, Tensor] | None = None


class Encoded(NamedTuple):
    """Tokens, or the status of a row without any; `detail` also says what was truncated."""

    tokens: Tokens | None
    status: str
    detail: str
