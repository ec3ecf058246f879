"""A subset by name in `dataset_info.json`, and through LLaMA-Factory's own command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import lc_engine as lc
from helpers.frameworks import llamafactory_config, run_command, save_for_training
from lc_engine.integrations.llamafactory import add_dataset

WHOLE = {
    "file_name": "talk.json",
    "hf_hub_url": "someone/talk",
    "formatting": "alpaca",
    "columns": {"prompt": "prompt", "response": "completion"},
}


@pytest.fixture
def folder(tmp_path, talk):
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"talk": WHOLE, "é": {"x": 1}}))
    return tmp_path


def test_the_entry_is_a_copy_with_another_file(folder, talk):
    out = add_dataset(folder / "talk.json", [5, 2], name="talk_lc", like="talk")
    assert json.loads(out.read_text()) == [talk[2], talk[5]]
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    assert info.pop("talk_lc") == {
        "file_name": "talk_lc.json",
        "formatting": "alpaca",
        "columns": {"prompt": "prompt", "response": "completion"},
    }
    assert info == {"talk": WHOLE, "é": {"x": 1}}
    # Another budget overwrites it.
    add_dataset(folder / "talk.json", [7], name="talk_lc", like="talk")
    assert json.loads(out.read_text()) == [talk[7]]


def test_invalid_arguments_are_named(folder, tmp_path):
    before = (folder / "dataset_info.json").read_bytes()
    with pytest.raises(ValueError, match="no entry 'other'; it has talk, é"):
        add_dataset(folder / "talk.json", [0], name="new", like="other")
    with pytest.raises(ValueError, match="an entry 'talk' of another file"):
        add_dataset(folder / "talk.json", [0], name="talk", like="é", folder=other_folder(folder))
    with pytest.raises(ValueError, match="keep names row 500"):
        add_dataset(folder / "talk.json", [500], name="new", like="talk")
    with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json"):
        add_dataset(folder / "talk.json", [0], name="new", like="talk", folder=folder / "none")
    assert (folder / "dataset_info.json").read_bytes() == before
    assert not (folder / "new.json").exists()


def test_only_what_holds_for_a_subset_is_copied(folder, talk):
    schema = {"formatting": "alpaca", "ranking": False, "columns": WHOLE["columns"], "tags": {}}
    whole = {"file_name": "talk.json", "num_samples": 40, "split": "test", "subset": "en"}
    places = {"folder": "x", "ms_hub_url": "a/b", "script_url": "s.py", "revision": "v1"}
    later = {"cloud_file_name": "s3://x", "an option of a later version": 1}
    entries = {"talk": {**whole, **places, **later, **schema}}
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    add_dataset(folder / "talk.json", [0, 3], name="talk_lc", like="talk")
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info == entries | {"talk_lc": {"file_name": "talk_lc.json", **schema}}


def test_what_llamafactory_would_not_find_or_read_is_refused(folder):
    def refused(match, name="new", keep=(0,), data="talk.json", like="talk"):
        with pytest.raises(ValueError, match=match):
            add_dataset(folder / data, list(keep), name=name, like=like)

    for name in ("a,b", "../talk", " talk", ""):
        refused("must not hold a comma", name)
    refused("is the whole data set", "talk")
    refused("keep holds no row", keep=())
    (folder / "talk.jsonl.gz").write_bytes(b"")
    refused(r"reads \.json, \.jsonl, \.parquet, not \.gz: decompress", data="talk.jsonl.gz")
    entries = {"talk": WHOLE, "hub": {"hf_hub_url": "a/b"}, "own": {"file_name": "mine.json"}}
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    refused("an entry 'hub' of another file", "hub")
    refused(r"mine\.json is the file of the entry 'own'", "mine")
    before = sorted(path.name for path in folder.iterdir())
    for text in ("{", "[1]"):
        (folder / "dataset_info.json").write_text(text)
        refused(r"dataset_info\.json")
    assert sorted(path.name for path in folder.iterdir()) == before


def other_folder(folder: Path) -> Path:
    """A folder whose entry "talk" names another file."""
    other = folder / "other"
    other.mkdir()
    entries = {"talk": WHOLE | {"file_name": "sub/talk.json"}, "é": {"x": 1}}
    (other / "dataset_info.json").write_text(json.dumps(entries))
    return other


@pytest.mark.filterwarnings("default")
def test_its_command_trains_on_the_subset(folder, talk, llama):
    pytest.importorskip(
        "llamafactory", reason="LLaMA-Factory is not installed: make test-integrations"
    )
    from lc_engine.language.scorer import CausalLMScorer

    model, tokenizer = llama
    scorer = CausalLMScorer(model, tokenizer, path=lc.LearningPath.gauss(2, 0.7, 1.0))
    entry = WHOLE | {"num_samples": 200, "split": "train[:10%]"}
    (folder / "dataset_info.json").write_text(json.dumps({"talk": entry}))
    scores = lc.score(scorer, folder / "talk.json")
    direct = lc.score(scorer, talk)
    np.testing.assert_array_equal(scores.column("lc"), direct.column("lc"))
    keep = lc.select(scores, 24, gamma=0.5)
    np.testing.assert_array_equal(keep, lc.select(direct, 24, gamma=0.5))
    add_dataset(folder / "talk.json", keep, name="talk_lc", like="talk")

    save_for_training(model, tokenizer, folder / "model")
    more = {"cutoff_len": 128, "per_device_train_batch_size": 8}
    (folder / "train.yaml").write_text(json.dumps(llamafactory_config(folder, "talk_lc", **more)))
    command = Path(sys.executable).parent / "llamafactory-cli"
    assert "Num examples = 24" in run_command([command, "train", folder / "train.yaml"], folder)
    result = json.loads((folder / "run" / "train_results.json").read_text())
    assert np.isfinite(result["train_loss"])
