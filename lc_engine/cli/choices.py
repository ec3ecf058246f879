"""Values that options of the command line choose from.

Those of the library, in a module that imports nothing; a test compares them.
"""

from __future__ import annotations

from typing import Literal

Head = Literal["prototype", "linear", "knn"]
LabelKind = Literal["class", "soft", "none"]
Logit = Literal["inverse_distance", "neg_sq_distance", "cosine"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
MaskingKind = Literal["magnitude", "random", "dropout", "exits"]
TextPooling = Literal["auto", "cls", "mean", "pooler"]
Scope = Literal["global", "layer"]
Weights = Literal["body", "head", "all"]
Turns = Literal["all", "last"]
Reasoning = Literal["score", "context", "drop"]
Pooling = Literal["mean", "weighted_mean"]
Objective = Literal["balanced", "as-is"]
Strategy = Literal[
    "auto",
    "flexrand",
    "easy",
    "easy_diverse",
    "hard",
    "random",
    "stratified",
    "moderate",
    "herding",
    "guarded_herding",
    "kcenter",
    "el2n",
    "entropy",
    "least_confidence",
    "margin",
]
