"""Rows of Arrow tables as the values that were stored: JSON decoded, names of classes, no fillers.

Arrow gives every struct all fields of its column, so a field that a row lacks is null there: nulls
within structs are left out, as in the JSON that they came from. `datasets` (5.2) stores a column
whose values differ in type as JSON text of the extension type arrow.json.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lc_engine._util.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    Decode = Callable[[Any], Any]

_METADATA = b"huggingface"


class RowDecoder:
    """Turns the values of a table's rows into those that were stored.

    Args:
        schema: of the table; what `datasets` wrote into its metadata names the classes.
    """

    def __init__(self, schema: pa.Schema) -> None:
        features = _features(schema)
        made = {field.name: _decoder(field.type, features.get(field.name)) for field in schema}
        self._decoders = {name: decode for name, decode in made.items() if decode is not None}

    def rows(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Return rows of `to_pylist`, their values decoded."""
        for row in rows:
            for name, decode in self._decoders.items():
                row[name] = decode(row[name])
            yield row


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _decoder(kind: pa.DataType, feature: Any) -> Decode | None:
    """Return what decodes values of a type, None if they are what was stored."""
    types = require("pyarrow", "table").types
    name = feature.get("_type") if isinstance(feature, dict) else None
    if getattr(kind, "extension_name", None) == "arrow.json" or name == "Json":
        return _loads
    if name == "ClassLabel" and isinstance(feature.get("names"), list):
        names = feature["names"]
        return lambda i: names[i] if isinstance(i, int) and 0 <= i < len(names) else i
    if types.is_map(kind):
        return lambda pairs: None if pairs is None else dict(pairs)
    if types.is_struct(kind):
        return _struct(kind, feature)
    if any(is_list(kind) for is_list in (types.is_list, types.is_large_list)) or (
        types.is_fixed_size_list(kind)
    ):
        return _list(_decoder(kind.value_type, _inside(feature)))
    return None


def _inside(feature: Any) -> Any:
    """Return the feature of the elements of a list."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, dict) else None


def _struct(kind: pa.DataType, feature: Any) -> Decode:
    fields = feature if isinstance(feature, dict) and "_type" not in feature else {}
    decoders = {field.name: _decoder(field.type, fields.get(field.name)) for field in kind}

    def decode(values: Any) -> Any:
        if values is None:
            return None
        return {
            name: value if (inner := decoders[name]) is None else inner(value)
            for name, value in values.items()
            if value is not None
        }

    return decode


def _list(inner: Decode | None) -> Decode | None:
    if inner is None:
        return None
    return lambda values: None if values is None else [inner(value) for value in values]


def _loads(text: Any) -> Any:
    return json.loads(text) if isinstance(text, str | bytes) else text
