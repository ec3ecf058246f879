"""Samples of WebDataset archives, with all their members."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from lc_engine.data.ids import id_of_name
from lc_engine.data.readers.tar_index import sample_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def copy_samples(path: Path, keys: Collection[str], out: Path) -> None:
    """Write the members of some samples, in order, to a new archive.

    Args:
        path: the archive.
        keys: ids of the samples within it.
        out: the new archive. Members that belong to no sample are left out.

    Raises:
        ValueError: a sample that the archive no longer has.
    """
    left = set(keys)
    with (
        path.open("rb") as file,
        tarfile.open(fileobj=file, mode="r:") as source,
        tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as target,
    ):
        while (member := source.next()) is not None:
            source.members = []  # type: ignore[attr-defined]  # it would keep every header
            sample = sample_of(member)
            if sample is None or id_of_name(sample.key) not in keys:
                continue
            left.discard(id_of_name(sample.key))
            target.addfile(member, source.extractfile(member))
            target.members = []  # type: ignore[attr-defined]
    if left:
        raise ValueError(f"{path} has no sample {min(left)!r}: it changed while it was read")
