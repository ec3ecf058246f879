"""Instruction sets with images as a source, which knows the image files that the rows name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lc_engine.data.identity import FileStates
from lc_engine.data.readers.records import DatasetRecords, ParquetRecords
from lc_engine.language.images.files import is_image_file, local_path
from lc_engine.language.images.rows import image_values
from lc_engine.language.source import InstructionSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.readers.records import Records
    from lc_engine.language.source import ConversationEncoder


class ImageTextSource(InstructionSource):
    """Conversations with images; see `InstructionSource`.

    Of rows of text files the image files belong to the data: their names, sizes and times are in
    the description that a run is compared by. Parquet and `datasets` may hold images themselves,
    so their rows are not read for that.

    Args:
        records: the rows.
        encoder: tokenizes them.
        form: format of the rows.
    """

    # Pixels and features of all rows of a batch are held at once.
    batch_rows = 16

    def __init__(
        self, records: Records, encoder: ConversationEncoder, form: str | None = None
    ) -> None:
        super().__init__(records, encoder, form)
        folder = records.folder
        names: list[str] = []
        self._starts = [0]
        if not isinstance(records, DatasetRecords | ParquetRecords):
            for record in records.read(0, len(records)):
                names += (one for one in image_paths(record.fields) if is_image_file(one, folder))
                self._starts.append(len(names))
        self._images = FileStates(names, lambda index: folder / names[index])
        self._count = len(names)

    def describe(self) -> dict[str, Any]:
        """Return what `InstructionSource` does, and the state of the image files."""
        if not self._count:
            return super().describe()
        return super().describe() | {"images": self._count, "images_digest": self._images.digest()}

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of rows, their images too; see `FileStates.check`."""
        super().check_unchanged(rows)
        if self._count:
            self._images.check(range(self._starts[rows.start], self._starts[rows.stop]))


def image_paths(row: Any) -> Iterator[str]:
    """Yield the paths of the image files that a row names, as it writes them."""
    for value in image_values(row):
        path = local_path(value)
        if path is not None:
            yield path
