"""Types and alignments of a kernel's arguments, as a launch would find them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lc_engine.kernels.aot.cases import KERNELS, NAMES

if TYPE_CHECKING:
    from lc_engine.kernels.aot.cases import Case

# Scalars that a kernel is compiled for as multiples of 16, as Triton does at run time.
ALIGNED = {"D", "H", "E", "stride_xk", "stride_hk"}
LONG = {"seed", "stride_xk", "stride_hk"}
FLOAT = {"scale", "min_distance", "min_norm"}
# Pointers whose dtype is not that of the features.
POINTERS = {
    **dict.fromkeys(("s_ptr", "s1_ptr", "t_ptr", "b_ptr", "b1_ptr", "norm_ptr"), "*fp32"),
    **dict.fromkeys(("lc_ptr", "loss_ptr", "path_ptr", "nll_ptr", "entropy_ptr"), "*fp32"),
    **dict.fromkeys(("y_ptr", "table_ptr"), "*i64"),
    **dict.fromkeys(("omega_ptr", "parts_ptr"), "*fp64"),
}
Attributes = dict[tuple[int], list[list[str | int]]]


def signature(case: Case) -> tuple[dict[str, str], Attributes]:
    """Return the types of a case's arguments by name and their attributes by index."""
    types: dict[str, str] = {}
    attributes: Attributes = {}
    for index, name in enumerate(KERNELS[case.kernel].arg_names):
        if name in case.constants:
            types[name] = "constexpr"
            continue
        pointer = name.endswith("_ptr")
        if pointer:
            types[name] = POINTERS.get(name, f"*{NAMES[case.dtype]}")
        else:
            types[name] = "i64" if name in LONG else "fp32" if name in FLOAT else "i32"
        if pointer or name in ALIGNED:
            attributes[index,] = [["tt.divisibility", 16]]
    return types, attributes
