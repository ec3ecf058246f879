"""Every configuration that `config` can choose on a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lc_engine.kernels import (
    apply_thresholds,
    config,
    linear_confidence,
    masked_linear,
    mlp_confidence,
    path_sum,
    prototype_confidence,
    token_nll,
)
from lc_engine.kernels.dtypes import TRITON_DTYPES, precision
from lc_engine.kernels.layer import GELU, NONE, RELU
from lc_engine.kernels.saliency import GIVEN, MAGNITUDE, RANDOM, WHOLE
from lc_engine.kernels.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SOURCES = {"magnitude": MAGNITUDE, "given": GIVEN, "random": RANDOM, "whole": WHOLE}
MASKED = ("magnitude", "given", "random")
KERNELS = {
    "linear_confidence": linear_confidence._linear_confidence_kernel,
    "premask": linear_confidence._premask_kernel,
    "prototype_confidence": prototype_confidence._prototype_confidence_kernel,
    "mlp_confidence": mlp_confidence._mlp_confidence_kernel,
    "masked_linear": masked_linear._masked_linear_kernel,
    "token_nll": token_nll._token_nll_kernel,
    "apply_thresholds": apply_thresholds._apply_thresholds_kernel,
    "path_sum": path_sum._path_sum_kernel,
}


@dataclass(frozen=True)
class Case:
    """One configuration of one kernel on one target.

    Attributes:
        kernel: key of `KERNELS`.
        variant: name of the configuration.
        target: key of `TARGETS`.
        dtype: dtype of features and weights.
        constants: the kernel's compile-time arguments, and None for every pointer that the
            configuration does not need.
        warps: warps (wavefronts) of a program.
        stages: steps whose loads are in flight.
        product: whether the kernel multiplies matrices.
    """

    kernel: str
    variant: str
    target: str
    dtype: torch.dtype
    constants: dict[str, Any]
    warps: int
    stages: int
    product: bool

    @property
    def name(self) -> str:
        """A name without spaces, unique among the cases."""
        return f"{self.kernel}-{self.variant}-{NAMES[self.dtype]}-{self.target}"


def cases(target: str) -> Iterator[Case]:
    """Yield every configuration that `config` can choose on a target."""
    for dtype in (torch.bfloat16, torch.float32):
        yield from _linear(target, dtype)
        yield from _premask(target, dtype)
        yield from _prototype(target, dtype)
        yield from _mlp(target, dtype)
        yield from _masked_linear(target, dtype)
        yield from _token_nll(target, dtype)
        yield from _apply_thresholds(target, dtype)
    # Half precision runs the tiles of bfloat16.
    half = ("premasked-K50-C1000", "expanded-K50-C1000")
    yield from (case for case in _linear(target, torch.float16) if case.variant in half)
    constants = {"BLOCK_N": path_sum.BLOCK_N}
    yield Case("path_sum", "all", target, torch.float32, constants, path_sum.NUM_WARPS, 1, False)


def _linear(target: str, dtype: torch.dtype) -> Iterator[Case]:
    device = TARGETS[target]
    shapes = {f"K{k}-C{c}": (k, c) for k in (50, 2) for c in (1000, 10)}
    # Pre-masked, saliency, whether D is a multiple of its block, whether programs share a path.
    variants = {
        "premasked": (True, "magnitude", True, False),
        "expanded": (False, "magnitude", True, False),
        "expanded-given": (False, "given", True, False),
        "expanded-random": (False, "random", True, False),
        "premasked-ragged": (True, "magnitude", False, False),
        "expanded-ragged": (False, "magnitude", False, False),
        "premasked-split": (True, "magnitude", True, True),
    }
    seen = set()
    for shape, (sub_models, classes) in shapes.items():
        for variant, (premasked, source, even, split) in variants.items():
            scored = source != "magnitude"
            tile = config.linear(
                device, dtype.itemsize, classes, sub_models, premasked=premasked, scored=scored
            )
            if (tile, variant) in seen:
                continue
            seen.add((tile, variant))
            constants = {
                **_product(target, dtype),
                **_saliency(source, "s_ptr"),
                **_sums(split),
                **dict.fromkeys(("t_ptr",) if premasked else ()),
                "EVEN_D": even,
                "BLOCK_N": tile.rows,
                "BLOCK_C": tile.classes,
                "BLOCK_S": tile.sub_models,
                "BLOCK_K": tile.depth,
            }
            name = f"{variant}-{shape}"
            yield Case(
                "linear_confidence", name, target, dtype, constants, tile.warps, tile.stages, True
            )


def _premask(target: str, dtype: torch.dtype) -> Iterator[Case]:
    for source in MASKED:
        constants = {
            **_saliency(source, "s_ptr"),
            "NESTED": True,
            "BLOCK_S": 8,
            "BLOCK": linear_confidence.PREMASK_BLOCK,
        }
        warps = linear_confidence.PREMASK_WARPS
        yield Case("premask", source, target, dtype, constants, warps, 1, False)


def _prototype(target: str, dtype: torch.dtype) -> Iterator[Case]:
    for logit, value in prototype_confidence.LOGITS.items():
        cosine = logit == "cosine"
        tile = config.prototype(TARGETS[target], dtype.itemsize, cosine)
        constants = {
            **_product(target, dtype),
            **_sums(split=False),
            **dict.fromkeys(() if cosine else ("norm_ptr",)),
            "LOGIT": value,
            "EVEN_D": True,
            "BLOCK_N": tile.rows,
            "BLOCK_C": tile.classes,
            "BLOCK_K": tile.depth,
        }
        yield Case(
            "prototype_confidence", logit, target, dtype, constants,
            tile.warps, tile.stages, cosine,
        )  # fmt: skip


def _mlp(target: str, dtype: torch.dtype) -> Iterator[Case]:
    device = TARGETS[target]
    widest = config.mlp_width(device, dtype.itemsize, plain=True)
    scored_widest = config.mlp_width(device, dtype.itemsize, plain=False)
    # Width of a hidden layer on the chip or None, saliency, activation.
    variants: dict[str, tuple[int | None, str, int]] = {
        f"relu-H{width}": (width, "magnitude", RELU.value)
        for width in (64, 128, 256)
        if width <= widest
    }
    if scored_widest:
        variants |= {
            "gelu": (scored_widest, "magnitude", GELU.value),
            "gelu-random": (scored_widest, "random", GELU.value),
            "gelu-given": (scored_widest, "given", GELU.value),
        }
    variants |= {
        "wide": (None, "magnitude", RELU.value),
        "wide-random": (None, "random", RELU.value),
        "wide-given": (None, "given", RELU.value),
    }
    for variant, (width, source, activation) in variants.items():
        if width is None:
            tile = config.product(device, dtype.itemsize, scored=source != "magnitude")
        else:
            tile = config.mlp(device, dtype.itemsize)
        constants = {
            **_product(target, dtype),
            **_saliency(source, "s1_ptr", "s_ptr"),
            **_sums(split=False),
            **dict.fromkeys(("w1_ptr", "b1_ptr", "s1_ptr") if width is None else ()),
            "ACTIVATION": activation,
            "BLOCK_N": tile.rows,
            "BLOCK_C": tile.classes,
            "BLOCK_K": tile.depth,
            "BLOCK_H": width,
        }
        yield Case(
            "mlp_confidence", variant, target, dtype, constants, tile.warps, tile.stages, True
        )


def _masked_linear(target: str, dtype: torch.dtype) -> Iterator[Case]:
    # GELU takes the most registers, so each source is compiled with it; transformers and MLPs have
    # layers without activation and with ReLU.
    variants = {source: (source, GELU.value) for source in MASKED}
    variants |= {"magnitude-plain": ("magnitude", NONE.value)}
    variants |= {"magnitude-relu": ("magnitude", RELU.value)}
    for variant, (source, activation) in variants.items():
        tile = config.product(TARGETS[target], dtype.itemsize, scored=source != "magnitude")
        constants = {
            **_product(target, dtype),
            **_saliency(source, "s_ptr"),
            "ACTIVATION": activation,
            "BLOCK_N": tile.rows,
            "BLOCK_E": tile.classes,
            "BLOCK_K": tile.depth,
        }
        yield Case(
            "masked_linear", variant, target, dtype, constants, tile.warps, tile.stages, True
        )


def _token_nll(target: str, dtype: torch.dtype) -> Iterator[Case]:
    for source in SOURCES:
        for entropy in (False, True):
            scored = source in ("given", "random")
            tile = config.vocabulary(
                TARGETS[target], dtype.itemsize, scored=scored, entropy=entropy
            )
            constants = {
                **_product(target, dtype),
                **_saliency(source, "s_ptr"),
                **dict.fromkeys(("t_ptr",) if source == "whole" else ()),
                **dict.fromkeys(() if entropy else ("entropy_ptr",)),
                "BLOCK_N": tile.rows,
                "BLOCK_V": tile.classes,
                "BLOCK_K": tile.depth,
            }
            variant = f"{source}-entropy" if entropy else source
            yield Case(
                "token_nll", variant, target, dtype, constants, tile.warps, tile.stages, True
            )


def _apply_thresholds(target: str, dtype: torch.dtype) -> Iterator[Case]:
    for source in MASKED:
        constants = {
            **_saliency(source),
            "ALIGNED": True,
            "DTYPE": TRITON_DTYPES[dtype],
            "BLOCK": apply_thresholds.BLOCK,
        }
        warps = apply_thresholds.NUM_WARPS
        yield Case("apply_thresholds", source, target, dtype, constants, warps, 1, False)


def _product(target: str, dtype: torch.dtype) -> dict[str, Any]:
    return {"COMPUTE": TRITON_DTYPES[dtype], "PRECISION": precision(TARGETS[target], dtype)}


def _saliency(source: str, *pointers: str) -> dict[str, Any]:
    """Return the source of saliencies, and None for their pointers unless they are given."""
    unused = () if source == "given" else pointers
    return {"SALIENCY": SOURCES[source].value, **dict.fromkeys(unused)}


def _sums(split: bool) -> dict[str, None]:
    """Return None for the outputs that a kernel does not write: parts of a path's sums, or sums."""
    return dict.fromkeys(("lc_ptr", "loss_ptr") if split else ("parts_ptr",))
