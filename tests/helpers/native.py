"""The instruction sets of the C++ core, switched within the process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lc_engine.ops import contract

if TYPE_CHECKING:
    from collections.abc import Iterator

# Those that this processor has, from the least to the best; none without the core.
ISAS: list[str] = contract.native().isas() if contract.native() else []


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Run the core on an instruction set for a while."""
    before = contract.native().set_isa(isa)
    try:
        yield
    finally:
        contract.native().set_isa(before)
