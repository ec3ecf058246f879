"""Learning-complexity scores for every sample of a fine-tuning set.

    scorer = lc.Scorer(model, head="prototype", path=lc.LearningPath.gauss(8))
    scores = lc.score(scorer, dataset, out="scores/")
    keep = lc.select(scores, keep=0.1)

Names are imported when they are first used, so `import lc_engine` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lc_engine import ops, presets
    from lc_engine.data.table import ScoreTable
    from lc_engine.exits import Exits
    from lc_engine.extension import extend
    from lc_engine.job import score
    from lc_engine.masking import Masking
    from lc_engine.path import LearningPath
    from lc_engine.scorer import Scorer
    from lc_engine.select import select
    from lc_engine.submodels import Submodels
    from lc_engine.until import score_until_selected

    __version__: str

__all__ = [
    "Exits",
    "LearningPath",
    "Masking",
    "ScoreTable",
    "Scorer",
    "Submodels",
    "__version__",
    "extend",
    "ops",
    "presets",
    "score",
    "score_until_selected",
    "select",
]

_HOMES = {
    "Exits": "lc_engine.exits",
    "LearningPath": "lc_engine.path",
    "Masking": "lc_engine.masking",
    "ScoreTable": "lc_engine.data.table",
    "Scorer": "lc_engine.scorer",
    "Submodels": "lc_engine.submodels",
    "extend": "lc_engine.extension",
    "score": "lc_engine.job",
    "score_until_selected": "lc_engine.until",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in ("ops", "presets"):
        value = importlib.import_module(f"lc_engine.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("lc_engine")
    else:
        raise AttributeError(f"module 'lc_engine' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(types.ModuleType):
    """This package, in which `select` is the function also once its sub-package is imported.

    The import system sets the sub-package lc_engine.select as an attribute here; the property
    lets that pass, so `lc.select(...)` and `from lc_engine.select import ...` live together.
    """

    @property
    def select(self) -> Any:
        from lc_engine.select import select

        return select

    @select.setter
    def select(self, sub_package: types.ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
