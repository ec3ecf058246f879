"""How a run is cut into parts: about a minute of work each, by what a row is expected to cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from typing import Any

    from lc_engine.data.batch import Source

# What a killed process loses and another one can take over.
_SECONDS: Final = 60.0
# Additions and multiplications per second, of a processor's thread and of a GPU: nominal, below
# what the engine reaches (docs/language.md, docs/backbones.md), so that a part rather takes less.
_PER_THREAD: Final = 1e11
_PER_GPU: Final = 3e13
# Rows by which the cost of all is judged.
_JUDGED_ROWS: Final = 16
_LEAST_BATCH: Final = 8
# Folders of more files are slow to list, and a run of so many minutes is cut for several machines.
_MOST_PARTS: Final = 10_000


class Cut(NamedTuple):
    """Rows that go through the model together, and rows of a part."""

    batch_rows: int
    part_rows: int


@runtime_checkable
class KnowsItsCost(Protocol):
    """A scorer that can say what a row costs."""

    def operations_per_row(self, inputs: Any) -> tuple[float, torch.device]:
        """Return the additions and multiplications of a row like these inputs, and the device."""
        ...


def cut_of(
    scorer: object, source: Source, batch_rows: int, part_rows: int, *, batch_is_given: bool
) -> Cut:
    """Return how to cut a run.

    It is the same for the same model, data, device and number of threads; no time is measured.
    Where scores depend on the rows that go through the model together, by rounding, parts of whole
    batches make them the same however the run is cut.

    Args:
        scorer: what scores; one that does not know its cost gets the largest cut.
        source: the data.
        batch_rows: most rows of a batch.
        part_rows: most rows of a part.
        batch_is_given: whether a batch must not have fewer rows.
    """
    if not isinstance(scorer, KnowsItsCost) or not len(source):
        return Cut(batch_rows, part_rows)
    judged = next(source.batches(min(_JUDGED_ROWS, len(source)), 0, min(_JUDGED_ROWS, len(source))))
    if not len(judged.inputs):
        return Cut(batch_rows, part_rows)
    operations, device = scorer.operations_per_row(judged.inputs)
    speed = _PER_THREAD * torch.get_num_threads() if device.type == "cpu" else _PER_GPU
    return cut_by_cost(
        operations / speed,
        len(source),
        Cut(batch_rows, part_rows),
        batch_is_given=batch_is_given,
    )


def cut_by_cost(seconds: float, rows: int, most: Cut, *, batch_is_given: bool) -> Cut:
    """Return the cut of so many rows that take so many seconds each."""
    fitting = int(_SECONDS / seconds) if seconds > 0 else most.part_rows
    batch = most.batch_rows
    if not batch_is_given:
        batch = min(batch, max(_LEAST_BATCH, _power_of_two(fitting)))
    if fitting >= most.part_rows:
        return Cut(batch, most.part_rows)
    batches = _power_of_two(fitting // batch)
    fewest = -(-rows // (_MOST_PARTS * batch))
    return Cut(batch, batch * max(1, batches, fewest))


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is not larger than a number; 0 for 0."""
    return 1 << number.bit_length() - 1 if number > 0 else 0
