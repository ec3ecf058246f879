"""Arrow columns: which hold features, images and labels, and their values as blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.labels import Labels, int64_labels
from lc_engine.data.readers.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from lc_engine.data.targets import LabelKind


def is_feature_type(kind: pa.DataType) -> bool:
    """Return whether a type is a list of floating-point numbers, of fixed or variable length."""
    types = require("pyarrow.types", "table")
    lists = (types.is_fixed_size_list, types.is_list, types.is_large_list)
    return any(test(kind) for test in lists) and bool(types.is_floating(kind.value_type))


def _choose_column(
    what: str, asked: str | None, schema: pa.Schema, fitting: list[str], wanted: str
) -> str:
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if asked is not None:
        if asked not in schema.names:
            raise ValueError(f"{what} {asked!r} does not exist; the columns are {columns}")
        if asked not in fitting:
            raise ValueError(
                f"{what} {asked!r} is {schema.field(asked).type}, but must be {wanted}"
            )
        return asked
    if len(fitting) != 1:
        found = "no column is" if not fitting else f"{len(fitting)} columns are"
        raise ValueError(f"{what} must be named: {found} {wanted}; the columns are {columns}")
    return fitting[0]


def choose_feature_column(asked: str | None, schema: pa.Schema) -> str:
    """Return the name of the feature column: the one asked for, else the only one that fits.

    Raises:
        ValueError: no such column (the text lists the columns), or one of a wrong type.
    """
    lists = [field.name for field in schema if is_feature_type(field.type)]
    return _choose_column("feature_column", asked, schema, lists, "lists of floating-point numbers")


def is_image_type(kind: pa.DataType) -> bool:
    """Return whether a type holds encoded images: bytes, a struct with `bytes`, or with a `path`.

    Of a struct without bytes, or with `bytes` of nulls, nothing but a `path` may be beside them:
    that is what is left of `datasets`' struct where all images are in files.
    """
    types = require("pyarrow.types", "table")
    if not types.is_struct(kind):
        return bool(types.is_binary(kind) or types.is_large_binary(kind))
    fields = {field.name: field.type for field in kind}
    if "bytes" in fields and is_image_type(fields["bytes"]):
        return True
    path, content = fields.pop("path", None), fields.pop("bytes", None)
    is_path = path is not None and (types.is_string(path) or types.is_large_string(path))
    return is_path and not fields and (content is None or types.is_null(content))


def _has_bytes(kind: pa.DataType) -> bool:
    """Return whether a type of images has a place for bytes."""
    types = require("pyarrow.types", "table")
    if not types.is_struct(kind):
        return True
    return any(field.name == "bytes" and not types.is_null(field.type) for field in kind)


def choose_image_column(asked: str | None, schema: pa.Schema) -> str:
    """Return the name of the image column: the one asked for, else the only one that fits.

    A column of paths alone fits where none has bytes.

    Raises:
        ValueError: no such column (the text lists the columns), or one of a wrong type.
    """
    images = [field for field in schema if is_image_type(field.type)]
    if asked is None:
        images = [field for field in images if _has_bytes(field.type)] or images
    fitting = [field.name for field in images]
    wanted = "encoded images (bytes, or a struct of bytes and path, or of path)"
    return _choose_column("feature_column", asked, schema, fitting, wanted)


def choose_label_column(asked: str | None, schema: pa.Schema, kind: LabelKind = "class") -> str:
    """Return the name of the label column: the one asked for, else "label", else the only one.

    Args:
        asked: a name, or None.
        schema: the columns.
        kind: of the labels: integers, lists of numbers for votes, either for a loss.

    Raises:
        ValueError: no such column (the text lists the columns), or one of a wrong type.
    """
    types = require("pyarrow.types", "table")
    integers = [field.name for field in schema if types.is_integer(field.type)]
    votes = [field.name for field in schema if _holds_numbers(field.type)]
    if asked is None and "label" in schema.names:
        asked = "label"
    if kind == "soft":
        return _choose_column("label_column", asked, schema, votes, "lists of numbers")
    if kind == "any":
        numbers = [field.name for field in schema if types.is_floating(field.type)]
        fitting = [*integers, *numbers, *votes]
        return _choose_column("label_column", asked, schema, fitting, "numbers or lists of them")
    return _choose_column("label_column", asked, schema, integers, "integers")


def _holds_numbers(kind: pa.DataType) -> bool:
    types = require("pyarrow.types", "table")
    lists = (types.is_fixed_size_list, types.is_list, types.is_large_list)
    return any(test(kind) for test in lists) and bool(
        types.is_floating(kind.value_type) or types.is_integer(kind.value_type)
    )


def feature_width(column: pa.ChunkedArray) -> int | None:
    """Return the declared length of the lists of a column, else the most frequent one.

    None if there is no list, and the smallest of those that are equally frequent.
    """
    types, compute = require("pyarrow.types", "table"), require("pyarrow.compute", "table")
    if types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    frequent = compute.mode(compute.list_value_length(column))
    return int(frequent[0]["mode"].as_py()) if len(frequent) else None


def to_block(table: pa.Table, width: int) -> Block:
    """Return a table as a block.

    Args:
        table: columns `features`, lists of numbers (unreadable where null or of a length other
            than `width`), `labels`, integers, and `damage`, why a row could not be decoded, null
            where it could.
        width: D.
    """
    compute = require("pyarrow.compute", "table")
    types = require("pyarrow.types", "table")
    column = table.column("features")
    if (
        types.is_fixed_size_list(column.type)
        and column.type.list_size == width
        and not column.null_count
    ):
        # Every row is complete: one copy, straight into the block.
        chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        values = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
        labels = label_values(table.column("labels"))
        return Block(values.reshape(-1, width), labels.values, {}, labels.wrong)
    column = column.combine_chunks()
    lengths = np.asarray(compute.list_value_length(column).fill_null(-1))
    good = lengths == width
    unreadable = {}
    for row in np.flatnonzero(~good):
        reason = table.column("damage")[row].as_py()
        missing = "the features are missing (null)"
        other = f"the features have {lengths[row]} numbers, those of most rows have {width}"
        unreadable[int(row)] = reason or (missing if lengths[row] < 0 else other)
    if unreadable:
        # pyarrow takes a mask of NumPy from 17 on.
        column = column.filter(require("pyarrow", "table").array(good))
    # A null inside a list becomes NaN, so the row is non-finite.
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if unreadable:
        scattered = np.zeros((len(good), width), dtype=values.dtype)
        scattered[good] = values
        values = scattered
    else:
        values = values.copy()  # Arrow's own memory is read-only
    labels = label_values(table.column("labels"))
    return Block(values, labels.values, unreadable, labels.wrong)


def rebatched(tables: Iterator[pa.Table], width: int) -> Callable[[range], Block]:
    """Return a function that takes the next rows from `tables`, as many as are asked for."""
    pa = require("pyarrow", "table")
    pending: list[Any] = []

    def read(rows: range) -> Block:
        while sum(map(len, pending)) < len(rows):
            pending.append(next(tables))
        whole = pa.concat_tables(pending)
        pending[:] = [whole.slice(len(rows))]
        return to_block(whole.slice(0, len(rows)), width)

    return read


def columns_table(
    features: pa.ChunkedArray | pa.Array,
    labels: pa.ChunkedArray | pa.Array,
    damage: str | None = None,
) -> pa.Table:
    """Return the table that `to_block` takes."""
    pa = require("pyarrow", "table")
    reasons = pa.repeat(pa.scalar(damage, pa.string()), len(labels))
    return pa.table({"features": features, "labels": labels, "damage": reasons})


def label_values(labels: pa.ChunkedArray) -> Labels:
    """Return a column of integers, any of which may be null, as labels."""
    column: Any = labels.combine_chunks()
    missing = None
    if column.null_count:
        missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
        column = column.fill_null(0)
    return int64_labels(np.asarray(column.to_numpy(zero_copy_only=False)), missing)
