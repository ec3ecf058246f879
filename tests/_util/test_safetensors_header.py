from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from lc_engine._util.safetensors_header import TensorEntry, read_header


def written(path, header, payload=b"", length=None):
    """Write a file of the format by hand, such as no library writes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(
        (len(text) if length is None else length).to_bytes(8, "little") + text + payload
    )
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_header_says_where_tensors_lie(tmp_path):
    file = tmp_path / "a.safetensors"
    tensors = {
        "a": torch.ones(2, 3),
        "b": torch.ones(5, dtype=torch.float8_e5m2),
        "c": torch.ones(0),
    }
    save_file(tensors, file, metadata={"format": "pt"})
    found = read_header(file)
    assert found.keys() == tensors.keys()
    assert (found["a"].dtype, found["b"].dtype) == ("F32", "F8_E5M2")
    content = file.read_bytes()
    for name, tensor in tensors.items():
        place = found[name]
        assert place.shape == tuple(tensor.shape)
        assert content[place.start : place.stop] == tensor.view(torch.uint8).numpy().tobytes()


def test_a_file_by_hand_is_read(tmp_path):
    file = written(tmp_path / "a.safetensors", {"a": entry()}, b"\0" * 8)
    start = file.stat().st_size - 8
    assert read_header(file) == {"a": TensorEntry("F32", (2,), start, start + 8)}


ROOM = b"\0" * 8


@pytest.mark.parametrize(
    ("header", "payload", "length", "message"),
    [
        ({"a": entry()}, ROOM, 1 << 63, "is truncated"),
        ({"a": entry()}, ROOM, 10**8 + 1, "is truncated"),
        (b'{"a": ', ROOM, None, r"its header is damaged, Expecting value"),
        (b"\xff\xfe{}", ROOM, None, "is damaged"),
        (b"[" * 100_000, ROOM, None, "is damaged"),
        (b"[]", b"", None, "must hold a JSON object, got list"),
        ({"a": [1, 2]}, ROOM, None, r'says of the tensor "a" what cannot be'),
        ({"a": entry(shape=(-2,))}, ROOM, None, "what cannot be"),
        ({"a": entry(shape=(True, 2))}, ROOM, None, "what cannot be"),
        ({"a": entry(dtype=7)}, ROOM, None, "what cannot be"),
        ({"a": entry(offsets=(8, 0))}, ROOM, None, "what cannot be"),
        ({"a": entry(offsets=(0, 8, 9))}, ROOM, None, "what cannot be"),
        ({"a": entry(shape=(3,))}, ROOM, None, "what cannot be"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, ROOM, None, "what cannot be"),
        ({"a": entry(shape=(10**400,))}, ROOM, None, "an integer has 401 digits"),
        ({"a": entry()}, ROOM[:5], None, "is truncated: its tensors end at byte"),
        ({"a": entry()}, ROOM + b"x", None, "has bytes that no tensor has"),
        ({"a": entry(), "b": entry()}, ROOM, None, "overlap or leave a gap"),
        ({"a": entry(offsets=(8, 16))}, ROOM * 2, None, "overlap or leave a gap"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_the_file(
    tmp_path, header, payload, length, message
):
    file = written(tmp_path / "odd.safetensors", header, payload, length)
    with pytest.raises(ValueError, match=message) as error:
        read_header(file)
    assert "odd.safetensors" in str(error.value)
    assert "copy or download it again" in str(error.value)
