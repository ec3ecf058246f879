from __future__ import annotations

import pytest

from lc_engine.data.readers.delimited import DelimitedRecords
from lc_engine.data.readers.records import RowError


def test_quoted_line_breaks_long_values_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "rows.csv"
    long = "x" * (1 << 18)
    path.write_bytes(f'\ufeffinstruction,output\r\n"a\n""b"", c",\r\n\r\nd,{long}\r\n'.encode())
    records = DelimitedRecords(path)
    assert [record.fields for record in records.read(0, 2)] == [
        {"instruction": 'a\n"b", c', "output": ""},
        {"instruction": "d", "output": long},
    ]
    assert records.describe() == {"kind": "csv", "rows": 2}


def test_a_row_of_another_length_has_a_status(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("instruction\toutput\na\tb\tc\nd\n\te\n")
    found = [record.fields for record in DelimitedRecords(path).read(0, 3)]
    assert [isinstance(fields, RowError) and fields.status for fields in found] == [
        "invalid_csv",
        "invalid_csv",
        False,
    ]
    assert str(found[0]) == "3 values, but the header names 2 fields"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n\xff,c\n", "is not UTF-8"),
        (b"", "has no header line"),
        (b"a,a\n1,2\n", "names a field twice in its header: a, a"),
        (b'a,b\n"1,2\n', "line 2: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, says):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        DelimitedRecords(path)
