from __future__ import annotations

import pytest

from lc_engine._util.json_file import read_json_object


def test_an_object_is_read(tmp_path):
    (tmp_path / "a.json").write_text(f'{{"a": {-(1 << 63)}, "b": {int(1e30)}, "c": 1e3}}')
    found = read_json_object(tmp_path / "a.json")
    assert found == {"a": -(1 << 63), "b": int(1e30), "c": 1000.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" ", "is empty: copy"),
        (b'{"a": 1', "is damaged, Expecting ',' delimiter: line 1"),
        (b"\xff{}", "is damaged, "),
        (b"[1]", "must hold a JSON object, got list"),
        (b'{"a": ' + b"9" * 401 + b"}", "is damaged, an integer has 401 digits"),
        (b'{"a": ' + b"[" * 100_000, "is damaged, "),
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_file(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_json_object(tmp_path / "a.json")
    assert str(error.value).startswith(str(tmp_path / "a.json"))
