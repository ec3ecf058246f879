"""Learning-complexity scores for every sample of a fine-tuning set.

    scorer = lc.Scorer(model, head="prototype", path=lc.LearningPath.gauss(8))
    scores = lc.score(scorer, dataset, out="scores/")
    keep = lc.select(scores, keep=0.1)

Names are imported when they are first used, so `import lc_engine` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lc_engine import ops, presets
    from lc_engine.backbone.early_exits import Exits
    from lc_engine.data.table import ScoreTable
    from lc_engine.heads.loss import Loss
    from lc_engine.masking import Masking
    from lc_engine.path.learning_path import LearningPath
    from lc_engine.pruning.prune import prune
    from lc_engine.reporting.page import report
    from lc_engine.scorer.scorer import Scorer
    from lc_engine.scoring.extend import extend
    from lc_engine.scoring.score import score
    from lc_engine.scoring.until_selected import score_until_selected
    from lc_engine.selection.api import select
    from lc_engine.selection.quadrants import quadrants
    from lc_engine.submodels import Submodels

    __version__: str

# Each public name and the module that it is imported from; a module is its own home.
_HOMES = {
    "Exits": "lc_engine.backbone.early_exits",
    "LearningPath": "lc_engine.path.learning_path",
    "Loss": "lc_engine.heads.loss",
    "Masking": "lc_engine.masking",
    "ScoreTable": "lc_engine.data.table",
    "Scorer": "lc_engine.scorer.scorer",
    "Submodels": "lc_engine.submodels",
    "extend": "lc_engine.scoring.extend",
    "ops": "lc_engine.ops",
    "presets": "lc_engine.presets",
    "prune": "lc_engine.pruning.prune",
    "quadrants": "lc_engine.selection.quadrants",
    "report": "lc_engine.reporting.page",
    "score": "lc_engine.scoring.score",
    "score_until_selected": "lc_engine.scoring.until_selected",
    "select": "lc_engine.selection.api",
}

__all__ = [
    "Exits",
    "LearningPath",
    "Loss",
    "Masking",
    "ScoreTable",
    "Scorer",
    "Submodels",
    "__version__",
    "extend",
    "ops",
    "presets",
    "prune",
    "quadrants",
    "report",
    "score",
    "score_until_selected",
    "select",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("lc_engine")
    elif name in _HOMES:
        home = importlib.import_module(_HOMES[name])
        value = getattr(home, name, home)
    else:
        raise AttributeError(f"module 'lc_engine' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
