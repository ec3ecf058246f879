from __future__ import annotations

import json

import pytest

from lc_engine.language.formats import conversations, detect
from lc_engine.language.source import open_records

TALK = [("user", "?"), ("assistant", "!")]


def opened(folder, row, **entry):
    (folder / "rows.json").write_text(json.dumps([row]))
    info = {"mine": {"file_name": "rows.json", **entry}, "other": {"file_name": "others.json"}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return open_records(folder / "rows.json")


def said(records):
    (record,) = records.read(0, 1)
    found = conversations(record.fields, detect(record.fields))
    return [[(m["role"], m["content"]) for m in one.messages] for one in found]


ROWS = {
    "columns of Alpaca": (
        {"q": "?", "a": "!", "before": [["1", "2"]], "output": "not this"},
        {"columns": {"prompt": "q", "response": "a", "history": "before"}},
        [[("user", "1"), ("assistant", "2"), *TALK]],
    ),
    "tags": (
        {"talk": [{"who": "me", "says": "?"}, {"who": "bot", "says": "!"}], "sys": "s"},
        {
            "formatting": "sharegpt",
            "columns": {"messages": "talk", "system": "sys"},
            "tags": {
                "role_tag": "who",
                "content_tag": "says",
                "user_tag": "me",
                "assistant_tag": "bot",
            },
        },
        [[("system", "s"), *TALK]],
    ),
    "tags alone": (
        {"conversations": [{"role": "user", "content": "?"}, {"role": "bot", "content": "!"}]},
        {
            "formatting": "sharegpt",
            "tags": {"role_tag": "role", "content_tag": "content", "assistant_tag": "bot"},
        },
        [TALK],
    ),
    "ranking": (
        {
            "talk": [{"who": "me", "says": "?"}],
            "good": {"who": "bot", "says": "!"},
            "bad": {"who": "bot", "says": "no"},
        },
        {
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {"messages": "talk", "chosen": "good", "rejected": "bad"},
            "tags": {
                "role_tag": "who",
                "content_tag": "says",
                "user_tag": "me",
                "assistant_tag": "bot",
            },
        },
        [TALK, [("user", "?"), ("assistant", "no")]],
    ),
}


@pytest.mark.parametrize(("row", "entry", "wanted"), ROWS.values(), ids=ROWS)
def test_the_entry_of_a_file_names_its_columns_and_tags(tmp_path, row, entry, wanted):
    assert said(opened(tmp_path, row, **entry)) == wanted


def test_the_digest_changes_with_the_entry(tmp_path):
    row = {"q": "?", "p": "??", "a": "!"}
    one = opened(tmp_path, row, columns={"prompt": "q", "response": "a"})
    records = one.digest(), one.records.digest()
    other = opened(tmp_path, row, columns={"prompt": "p", "response": "a"})
    assert other.digest() != records[0]


def test_an_entry_that_renames_nothing_changes_nothing(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "?", "output": "!"}]))
    plain = open_records(tmp_path / "rows.json")
    (tmp_path / "dataset_info.json").write_text(json.dumps({"a": {"file_name": "rows.json"}}))
    found = open_records(tmp_path / "rows.json")
    assert type(found) is type(plain)
    assert said(found) == [TALK]


def test_entries_that_disagree_are_refused(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    info = {
        "a": {"file_name": "rows.json", "columns": {"prompt": "x"}},
        "b": {"file_name": "rows.json"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"several entries of rows\.json, .* a, b; keep one"):
        open_records(tmp_path / "rows.json")
