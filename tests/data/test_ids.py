from __future__ import annotations

import os

import numpy as np
import pytest

from lc_engine.data.ids import id_of_name, name_of_id, read_id_lines, to_id_lines

ORDINARY = ["cat/01.png", "größe/β ü.jpg", "a b/c d.png", "100%/x.png", "#1?.png", "猫/一.png"]
ODD = [
    "a\nb.png",
    "a\rb",
    "a\x85b",
    "a\u2028b",
    "a\x0bb\x1cc",
    "tab\tname",
    "\x7f",
    " lead",
    "trail ",
    "trail\u3000",
    os.fsdecode(b"caf\xe9.png"),
    "a\\b",
    "a\\x0ab",
    "\\",
    "\\\\x0a\n",
]


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_its_own_id(name):
    assert id_of_name(name) == name == name_of_id(name)


@pytest.mark.parametrize("name", ODD)
def test_an_id_is_one_line_of_utf8_and_leads_back_to_the_name(name):
    row = id_of_name(name)
    row.encode()
    assert row.splitlines() == [row] == [row.strip()]
    assert name_of_id(row) == name


def test_two_names_never_share_an_id():
    names = [*ORDINARY, *ODD, *(id_of_name(name) for name in ODD)]
    assert len({id_of_name(name) for name in set(names)}) == len(set(names))


def test_ids_come_back_from_lines(tmp_path):
    ids = [id_of_name(name) for name in [*ORDINARY, *ODD]]
    (tmp_path / "ids.txt").write_text(to_id_lines(ids), encoding="utf-8")
    assert read_id_lines(tmp_path / "ids.txt") == ids
    assert to_id_lines(np.arange(3)) == "0\n1\n2\n"
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfa\r\nb c\r\n\r\nd")
    assert read_id_lines(tmp_path / "windows.txt") == ["a", "b c", "d"]


@pytest.mark.parametrize("odd", ["a\nb", "a\rb", "a\x85b", "a\u2028b", "", " a", "a\udcffb"])
def test_ids_that_lines_cannot_hold_are_refused(odd):
    with pytest.raises(ValueError, match=r"cannot be a line of a text file.*\.npy or \.parquet"):
        to_id_lines(["fine", odd])


def test_a_file_of_ids_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b"a\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"ids\.txt is not UTF-8"):
        read_id_lines(tmp_path / "ids.txt")
