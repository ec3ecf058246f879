"""Data sets of the Hugging Face Hub, by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from lc_engine._util.extras import require

_NAME: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.\[\]%]+)?")


def is_hub_name(location: Any) -> bool:
    """Return whether a location may be a data set of the Hub: OWNER/NAME or OWNER/NAME:SPLIT.

    Nothing of that name is here, and neither is a folder OWNER, in which it would be a missing
    file.
    """
    if not isinstance(location, str) or not _NAME.fullmatch(location):
        return False
    return not Path(location).exists() and not Path(location).parent.exists()


def load_hub(name: str) -> Any:
    """Return a `datasets.Dataset` of the Hub; no code that comes with it is ever run.

    Args:
        name: OWNER/NAME of a data set with one split, or OWNER/NAME:SPLIT.

    Raises:
        FileNotFoundError: it cannot be loaded, for want of a network or of the data set.
        ValueError: it has several splits; the text lists them.
        MissingExtraError: datasets is not installed.
    """
    repository, _, split = name.partition(":")
    datasets = require("datasets", "hf")
    try:
        loaded = datasets.load_dataset(repository, split=split or None, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise FileNotFoundError(
            f"data: {name} is neither here nor could it be loaded from the Hub: "
            f"{' '.join(str(error).split())}"
        ) from None
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) > 1:
        raise ValueError(
            f"data: {name} has the splits {', '.join(loaded)}; name one: "
            f"{name}:{next(iter(loaded))}"
        )
    return next(iter(loaded.values()))
