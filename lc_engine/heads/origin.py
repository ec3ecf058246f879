"""What a head learnt from: the description of a model and of data, with their digests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lc_engine._util.differences import differences

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from lc_engine.data.batch import Source


def describe_origin(scorer: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Return the origin of what a scorer learns from a source, as JSON values."""
    described = {**scorer, "data_digest": source.digest(), "data": source.describe()}
    # As read back from a file: JSON turns tuples into lists.
    origin: dict[str, Any] = json.loads(json.dumps(described))
    return origin


def read_origin(file: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Return the origin in a `.npz` file, None if it has none."""
    found: dict[str, Any] | None = json.loads(str(file["origin"])) if "origin" in file else None
    return found


def check_origin(path: Path, found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> None:
    """Refuse a file that was learnt from another model or other data.

    Raises:
        ValueError: the origins differ; the text names the fields.
    """
    difference = differences(found or {}, wanted)
    if difference:
        raise ValueError(
            f"{path} was left by a run with another model, settings or data ({difference}): delete "
            "it, or choose another folder"
        )


def check_model(found: Mapping[str, Any] | None, model_digest: str) -> None:
    """Refuse what was learnt with other weights; an unknown origin is accepted.

    Raises:
        ValueError: the digests differ.
    """
    if found is not None and found["model_digest"] != model_digest:
        raise ValueError(
            f"prototypes or bank: learnt with another model ({found['model_digest'][:12]}, this is "
            f"{model_digest[:12]}): fit them with this one"
        )
