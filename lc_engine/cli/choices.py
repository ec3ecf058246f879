"""What options let one choose from."""

from __future__ import annotations

from enum import StrEnum


class Head(StrEnum):
    """How features become the probability of the label."""

    PROTOTYPE = "prototype"
    LINEAR = "linear"
    KNN = "knn"


class MaskingKind(StrEnum):
    """What makes a sub-model: which weights go first, or where it ends."""

    MAGNITUDE = "magnitude"
    RANDOM = "random"
    DROPOUT = "dropout"
    EXITS = "exits"


class Scope(StrEnum):
    """Over what the share of kept weights is counted."""

    GLOBAL = "global"
    LAYER = "layer"


class Weights(StrEnum):
    """Which tensors are masked."""

    BODY = "body"
    HEAD = "head"
    ALL = "all"


class Turns(StrEnum):
    """Which answers of a conversation count."""

    ALL = "all"
    LAST = "last"


class Dtype(StrEnum):
    """In what numbers the sub-models compute."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class Score(StrEnum):
    """Which column tells easy rows from hard ones."""

    LOSS = "loss"
    LC = "lc"


class Logit(StrEnum):
    """What a prototype head makes of a distance."""

    INVERSE_DISTANCE = "inverse_distance"
    NEG_SQ_DISTANCE = "neg_sq_distance"
    COSINE = "cosine"
