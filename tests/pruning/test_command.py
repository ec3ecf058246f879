"""`lc-engine prune`, by what it leaves on disk and who can read it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm.data
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Subset

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.images import encode, pack
from helpers.pruning import names, pictures, prune, selection
from lc_engine.cli import main as cli
from lc_engine.pruning import folder as folders
from lc_engine.selection.decide import decide
from lc_engine.selection.exceptions import Exceptions

FILES = {*folders.RESULTS, "scores"}


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    """The page has a test of its own, and takes as long as all the rest."""
    from lc_engine.reporting import page

    def write(scores, data, subset, out, *, title, **_):
        for name in (out, out.with_name("report.suspicious.csv")):
            name.write_text(title)

    monkeypatch.setattr(page, "report", write)


def test_an_image_folder_becomes_a_smaller_one_by_hard_links(model, photos, tmp_path, capsys):
    out = tmp_path / "pruned"
    assert prune(model, photos, out, "--keep=9") == 3  # one row has no score
    assert {path.name for path in out.iterdir()} == FILES
    kept = names(out / "data")
    assert len(kept) == 9
    for name in kept:
        assert (out / "data" / name).samefile(photos / name)
    found = selection(out)
    assert found["form"] == {"kind": "image_folder", "linked": 9, "copied": 0}
    assert found["rows"] == {
        "in": 31,
        "scored": 30,
        "unscored": {"unreadable": 1},
        "unscored_rows_are": "dropped",
        "kept": 9,
    }
    assert [group["kept"] for group in found["groups"]] == [3, 3, 3]
    assert found["path"]["capacities"] == [1.0]
    printed, said = capsys.readouterr()
    assert "kept 9 of 31 rows (--keep 9) by flexrand" in printed
    assert "1 of 31 rows have no score and are dropped:\n" in said
    assert "  1 unreadable, first in row 20 (bee/broken.jpg): " in said
    assert "1 without a score dropped (1 unreadable)" in printed
    table = lc.ScoreTable.read(out / "scores")
    ids = table.column("id")[np.load(out / "positions.npy")]
    assert sorted(ids.tolist()) == kept
    assert "too few for a trial" in found["reason"]
    direct = lc.select(table, 9, found["strategy"], gamma=found["gamma"])
    assert sorted(direct.tolist()) == kept


# timm leaves the files that it opens to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_what_is_left_is_read_by_timm_and_by_a_data_loader(model, photos, tmp_path):
    out = tmp_path / "pruned"
    prune(model, photos, out, "--keep=9")
    read = timm.data.ImageDataset(str(out / "data"))
    assert len(read) == 9
    assert sorted(read.reader.class_to_idx) == ["ant", "bee", "cat"]
    whole = [photos / name for name in names(photos)]
    positions = np.load(out / "positions.npy")
    subset = Subset(whole, positions)
    assert [str(path.relative_to(photos)) for path in subset] == names(out / "data")
    loader = DataLoader(
        timm.data.ImageDataset(str(out / "data"), transform=lambda image: np.array(image)),
        batch_size=4,
    )
    assert sum(len(images) for images, _ in loader) == 9


def test_every_row_has_a_line_that_says_what_became_of_it(model, photos, tmp_path):
    out = tmp_path / "pruned"
    prune(model, photos, out, "--keep=9", "--noise-guard=0.2")
    rows = pd.read_parquet(out / "rows.parquet")
    assert rows["row"].tolist() == list(range(31))
    assert rows["reason"].value_counts().to_dict() == {
        "chosen": 9,
        "not_chosen": 15,
        "suspected": 6,
        "unscored": 1,
    }
    assert (rows["kept"] == (rows["reason"] == "chosen")).all()
    scored = rows[rows["reason"] != "unscored"]
    assert set(scored["group"]) == {"ant", "bee", "cat"}
    assert rows.loc[rows["reason"] == "unscored", ["group", "rank", "loss"]].isna().all(axis=None)
    for _, group in scored.groupby("group"):
        ordered = group.sort_values("loss", ascending=False)["rank"].tolist()
        np.testing.assert_allclose(ordered, np.linspace(0, 1, len(group)), atol=1e-6)


def is_number(text):
    return text.lstrip("+-").replace(".", "", 1).replace("e-", "", 1).isdigit()


def test_the_worst_rows_of_each_class_are_listed_with_reasons(model, tmp_path):
    pixels, labels = pictures(60)
    root = tmp_path / "set"
    wrong = {7, 20}
    for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        shown = (label + 1) % 3 if row in wrong else label
        folder = root / ("ant", "bee", "cat")[shown]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / f"{row:03d}.png")
    prune(model, root, tmp_path / "pruned", "--keep=0.2")
    with (tmp_path / "pruned" / "suspicious.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert {int(Path(row["id"]).stem) for row in listed[:2]} == wrong
    for row in listed[:2]:
        true = ("ant", "bee", "cat")[int(Path(row["id"]).stem) % 3]
        assert row["suggested"] == true
        assert float(row["rank"]) == 0
        assert f"the mean of {true} is nearer" in row["reason"]
        assert f"harder than 100 % of {row['group']}" in row["reason"]
    assert sum(row["suggested"] != "" for row in listed) == 2


def test_no_cell_of_the_suspicious_rows_is_a_formula(model, tmp_path):
    pixels, labels = pictures(30)
    classes, root = ("=1+1", "+2", "@SUM(A1)"), tmp_path / "set"
    for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / classes[(label + 1) % 3 if row == 7 else label]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / f"{row:03d}.png")
    prune(model, root, tmp_path / "pruned", "--keep=9")
    lists = {}
    for name in ("suspicious.csv", "report.suspicious.csv"):
        with (tmp_path / "pruned" / name).open(encoding="utf-8", newline="") as file:
            lists[name] = list(csv.DictReader(file))
        cells = [cell for row in lists[name] for cell in row.values()]
        formulas = [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert not [cell for cell in formulas if not is_number(cell)]
    own = lists["suspicious.csv"]
    assert {row["group"] for row in own} == {f"'{name}" for name in classes}
    assert all(row["id"].startswith(row["group"]) for row in own)
    assert own[0]["suggested"] == "'+2"


def test_another_budget_scores_nothing_again_and_replaces_all_results(
    model, photos, tmp_path, monkeypatch
):
    out = tmp_path / "pruned"
    prune(model, photos, out, "--keep=9")
    scores = {path.name: path.read_bytes() for path in (out / "scores").iterdir()}
    monkeypatch.setattr(lc.Scorer, "score_rows", None)
    assert prune(model, photos, out, "--keep=0.5", "--strategy=easy") == 3
    assert {path.name: path.read_bytes() for path in (out / "scores").iterdir()} == scores
    assert len(names(out / "data")) == 15
    assert selection(out)["strategy"] == "easy"
    assert {path.name for path in out.iterdir()} == FILES


def test_rows_without_a_score_can_be_kept(model, photos, tmp_path, capsys):
    out = tmp_path / "pruned"
    prune(model, photos, out, "--keep=9", "--unscored=keep")
    assert "bee/broken.jpg" in names(out / "data")
    assert len(names(out / "data")) == 10
    assert "1 without a score kept (1 unreadable)" in capsys.readouterr().out


def test_files_are_copied_where_there_are_no_links(model, photos, tmp_path, monkeypatch):
    link = os.link

    def refuse(source, target, **options):
        if str(source).startswith(str(photos)):
            raise OSError(18, "Invalid cross-device link")
        link(source, target, **options)

    monkeypatch.setattr("os.link", refuse)
    out = tmp_path / "pruned"
    prune(model, photos, out, "--keep=9")
    assert selection(out)["form"] == {"kind": "image_folder", "linked": 0, "copied": 9}
    for name in names(out / "data"):
        assert (out / "data" / name).read_bytes() == (photos / name).read_bytes()
        assert not (out / "data" / name).samefile(photos / name)


def image_table(count):
    pixels, labels = pictures(count)
    images = [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(pixels)]
    table = pa.table({"image": images, "label": labels, "note": [f"n{i}" for i in range(count)]})
    return table.replace_schema_metadata({"who": "me"})


def test_a_folder_of_parquet_keeps_its_files_schema_and_metadata(model, tmp_path):
    table = image_table(30)
    data = tmp_path / "set"
    data.mkdir()
    pq.write_table(table.slice(0, 20), data / "a.parquet", row_group_size=7, compression="gzip")
    pq.write_table(table.slice(20), data / "b.parquet")
    out = tmp_path / "pruned"
    assert prune(model, data, out, "--keep=9") == 0
    kept = np.load(out / "positions.npy")
    for name, start, stop in (("a.parquet", 0, 20), ("b.parquet", 20, 30)):
        wanted = table.take(kept[(kept >= start) & (kept < stop)])
        found = pq.read_table(out / "data" / name)
        assert found.equals(wanted)
        assert found.schema.metadata == wanted.schema.metadata
    footer = pq.read_metadata(out / "data" / "a.parquet")
    assert footer.row_group(0).column(0).compression == "GZIP"
    read = datasets.load_dataset("parquet", data_dir=str(out / "data"), split="train")
    assert read["note"] == [f"n{i}" for i in kept]


def test_tars_keep_all_members_of_their_samples(model, tmp_path):
    pixels, labels = pictures(24)
    data = tmp_path / "set"
    data.mkdir()
    for number in range(2):
        members = []
        for row in range(12 * number, 12 * number + 12):
            members += [
                (f"in/{row:03d}.png", encode(pixels[row])),
                (f"in/{row:03d}.cls", str(labels[row]).encode()),
                (f"in/{row:03d}.txt", f"caption {row}".encode()),
            ]
        pack(data / f"{number}.tar", members)
    out = tmp_path / "pruned"
    assert prune(model, data, out, "--keep=9") == 0
    found = []
    for path in sorted((out / "data").iterdir()):
        with tarfile.open(path) as tar:
            found += [(member.name, tar.extractfile(member).read()) for member in tar]
    kept = np.load(out / "positions.npy").tolist()
    assert [name for name, _ in found] == [
        f"in/{row:03d}.{kind}" for row in kept for kind in ("png", "cls", "txt")
    ]
    assert [content for name, content in found if name.endswith("txt")] == [
        f"caption {row}".encode() for row in kept
    ]
    files = [str(path) for path in sorted((out / "data").iterdir())]
    read = datasets.load_dataset(
        "webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert read["txt"] == [f"caption {row}" for row in kept]
    assert np.array_equal(np.array(read[0]["png"]), pixels[kept[0]])


def test_a_saved_data_set_stays_one(model, tmp_path):
    pixels, labels = pictures(24)
    kinds = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["ant", "bee", "cat"]),
            "note": datasets.Value("string"),
        }
    )
    whole = datasets.Dataset.from_dict(
        {
            "image": [PIL.Image.fromarray(image) for image in pixels],
            "label": labels,
            "note": [f"n{i}" for i in range(24)],
        },
        features=kinds,
    )
    whole.save_to_disk(str(tmp_path / "set"))
    out = tmp_path / "pruned"
    assert prune(model, tmp_path / "set", out, "--keep=9") == 0
    found = datasets.load_from_disk(str(out / "data"))
    assert found.features == whole.features
    assert found["note"] == [f"n{i}" for i in np.load(out / "positions.npy")]
    assert {group["group"] for group in selection(out)["groups"]} == {0, 1, 2}
    assert set(pd.read_parquet(out / "rows.parquet")["group"]) == {"ant", "bee", "cat"}


@pytest.fixture
def features(tmp_path):
    """Features of 60 rows in three classes, and a linear head."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 8)).astype(np.float32)
    x = rng.standard_normal((60, 8)).astype(np.float32)
    y = (x @ weight.T).argmax(1)
    np.save(tmp_path / "x.npy", x.astype(np.float64))
    np.save(tmp_path / "y.npy", y.astype(np.int32))
    head = {"fc.weight": torch.from_numpy(weight), "fc.bias": torch.zeros(3)}
    save_file(head, tmp_path / "head.safetensors")
    tensors = {
        "x": torch.from_numpy(x).bfloat16(),
        "label": torch.from_numpy(y),
        "id": torch.arange(60, dtype=torch.uint8),
        "mean": torch.zeros(8),
    }
    save_file(tensors, tmp_path / "set.safetensors", metadata={"who": "me"})
    return tmp_path


def test_features_and_labels_stay_two_files_of_their_dtypes(features, tmp_path):
    out = tmp_path / "pruned"
    head = [f"--model={features / 'head.safetensors'}", f"--labels={features / 'y.npy'}"]
    assert prune(head, features / "x.npy", out, "--keep=12") == 0
    kept = np.load(out / "positions.npy")
    for name in ("x.npy", "y.npy"):
        found, whole = np.load(out / "data" / name), np.load(features / name)
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole[kept])
    found = selection(out)
    assert "over random on validation folds" in found["reason"]
    taken = [tried for tried in found["trial"] if tried["candidate"] == found["strategy"]]
    assert all(tried["gain"] > tried["error"] for tried in taken)
    assert taken


def test_a_safetensors_file_keeps_what_is_not_by_row_and_its_metadata(features, tmp_path):
    from safetensors import safe_open

    out = tmp_path / "pruned"
    head = [f"--model={features / 'head.safetensors'}", "--feature-column=x"]
    assert (
        prune([*head, "--label-column=label"], features / "set.safetensors", out, "--keep=7") == 0
    )
    found, whole = (
        load_file(path) for path in (out / "data" / "set.safetensors", features / "set.safetensors")
    )
    kept = np.load(out / "positions.npy")
    for name, tensor in whole.items():
        wanted = tensor if name == "mean" else tensor[kept]
        assert torch.equal(found[name], wanted)
        assert found[name].dtype == tensor.dtype
    with safe_open(out / "data" / "set.safetensors", "pt") as opened:
        assert opened.metadata() == {"who": "me"}


def conversations(count):
    rows = tiny.random_rows(np.random.default_rng(5), count)
    return [row | {"source": ("math", "code")[i % 3 == 0]} for i, row in enumerate(rows)]


# datasets 3 leaves a .csv open that it has read to the end.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "csv", "parquet"])
def test_conversations_keep_their_lines_and_their_order(language_model, tmp_path, kind):
    import gzip

    rows = conversations(20)
    data = tmp_path / f"rows.{kind}"
    lines = [json.dumps(row, ensure_ascii=False) + "  \n" for row in rows]
    if kind == "json":
        data.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), data)
    elif kind == "csv":
        pd.DataFrame(rows).to_csv(data, index=False)
    else:
        content = "\n".join(lines).encode()
        data.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    out = tmp_path / "pruned"
    code = prune(language_model, data, out, "--keep=8", "--by=source", "--carry=source")
    assert code == 0
    kept = np.load(out / "positions.npy").tolist()
    written = out / "data" / data.name
    if kind == "json":
        found = json.loads(written.read_text())
    elif kind == "parquet":
        found = pq.read_table(written).to_pylist()
    elif kind == "csv":
        found = pd.read_csv(written, keep_default_na=False).to_dict("records")
    else:
        content = written.read_bytes()
        text = (gzip.decompress(content) if kind.endswith("gz") else content).decode()
        assert text == "".join(lines[row] for row in kept)
        found = [json.loads(line) for line in text.splitlines()]
    assert found == [rows[row] for row in kept]
    listed = pd.read_csv(out / "suspicious.csv")
    assert len(listed) == 10
    assert listed["ifd"].notna().all()
    assert listed.loc[listed["rank"] == 0, "reason"].str.startswith("ifd ").all()
    by_source = {group["group"]: group["kept"] for group in selection(out)["groups"]}
    assert by_source == {"code": 3, "math": 5}
    assert pd.read_parquet(out / "rows.parquet")["source"].tolist() == [
        row["source"] for row in rows
    ]
    reader = kind if kind in ("csv", "parquet") else "json"
    cache = str(tmp_path / "cache")
    read = datasets.load_dataset(reader, data_files=str(written), split="train", cache_dir=cache)
    assert read["output"] == [rows[row]["output"] for row in kept]


def test_rows_that_dataset_info_renames_are_written_as_they_are_with_their_entry(
    language_model, tmp_path
):
    rows = [
        {"q": row["instruction"], "a": row["output"], "source": row["source"]}
        for row in conversations(12)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"file_name": "rows.jsonl", "columns": {"prompt": "q", "response": "a"}}
    info = {"mine": {**entry, "num_samples": 12}, "other": {"file_name": "others.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    out = tmp_path / "pruned"
    assert prune(language_model, data, out, "--keep-bytes=400", "--by=source") == 0
    kept = np.load(out / "positions.npy").tolist()
    lines = (out / "data" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [rows[row] for row in kept]
    assert 0 < sum(len(line) + 1 for line in lines) <= 400
    # Not the number of samples, which is that of the whole.
    assert json.loads((out / "data" / "dataset_info.json").read_text()) == {"mine": entry}
    assert prune(language_model, out / "data" / "rows.jsonl", tmp_path / "again", "--keep=1") == 0


def test_without_ifd_it_says_before_scoring_that_rows_are_drawn(language_model, tmp_path, caplog):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in conversations(12)))
    said = "of instruction data without ifd, strategy auto keeps random rows"
    scorer = lc.Scorer.for_causal_lm(tiny.model(), tiny.tokenizer())
    with pytest.raises(ValueError, match="floor"):
        lc.prune(scorer, data, 3, tmp_path / "api", floor=-1)
    assert caplog.messages[0].startswith(said)
    caplog.clear()
    assert (
        prune(language_model, data, tmp_path / "named", "--keep=3", "--no-ifd", "--gamma=0.5") == 0
    )
    assert prune(language_model, data, tmp_path / "with", "--keep=3") == 0
    assert not [text for text in caplog.messages if "ifd" in text and "chose" not in text]
    assert prune(language_model, data, tmp_path / "without", "--keep=3", "--no-ifd") == 0
    assert [text for text in caplog.messages if text.startswith(said)]


def test_the_line_names_what_chose_instructions(language_model, tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in conversations(60)))
    assert prune(language_model, data, tmp_path / "out", "--keep=52") == 0
    shown = capsys.readouterr().out
    assert "by random behind a noise guard of 0.1 in " in shown
    assert "flexrand" not in shown
    assert prune(language_model, data, tmp_path / "plain", "--keep=52", "--no-ifd") == 0
    shown = capsys.readouterr().out
    assert "by random in " in shown
    assert "flexrand" not in shown
    assert selection(tmp_path / "plain")["method"] == "random"


def test_tokens_and_bytes_are_budgets_that_are_filled_and_never_exceeded(language_model, tmp_path):
    rows = conversations(40)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "pruned"
    assert prune(language_model, data, out, "--keep-tokens=0.2k", "--strategy=easy") == 0
    table = lc.ScoreTable.read(out / "scores")
    tokens = table.column("token_count")
    kept = np.load(out / "positions.npy")
    assert tokens[kept].sum() <= 200
    order = np.argsort(-table.column("lc"), kind="stable")
    assert tokens[order[: len(kept) + 1]].sum() > 200  # one more would be too many
    assert prune(language_model, data, out, "--keep-bytes=1k", "--strategy=random") == 0
    assert 700 < (out / "data" / "rows.jsonl").stat().st_size <= 1000


def test_shares_and_named_rows_are_obeyed(language_model, tmp_path):
    rows = conversations(30)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "always.txt").write_text("1\n2\n3\n")
    (tmp_path / "never.txt").write_text("0\n4\n")
    out = tmp_path / "pruned"
    options = ["--by=source", "--share=code=0.6", "--strategy=random"]
    named = [f"--always-keep={tmp_path}/always.txt", f"--never-keep={tmp_path}/never.txt"]
    assert prune(language_model, data, out, "--keep=10", *options, *named) == 0
    kept = np.load(out / "positions.npy")
    assert {1, 2, 3} <= set(kept)
    assert not {0, 4} & set(kept)
    sources = [rows[row]["source"] for row in kept]
    assert (sources.count("code"), sources.count("math")) == (6, 4)
    reasons = pd.read_parquet(out / "rows.parquet")["reason"]
    assert reasons[[0, 4]].tolist() == ["never", "never"]
    assert reasons[[1, 2, 3]].tolist() == ["always"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --keep, --keep-tokens and --keep-bytes"),
        (["--keep=2", "--keep-tokens=5"], "not --keep and --keep-tokens"),
        (["--keep=2", "--share=math"], "must be VALUE=SHARE"),
        (["--keep=2", "--by=topic"], "have no column 'topic'"),
        (["--keep=10", "--by=source", "--share=code=2"], "sum to 2"),
        (["--keep=12", "--by=source", "--share=code=0.9"], "which has 10"),
        (["--keep-tokens=1"], "is less than the chosen rows take"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(language_model, tmp_path, options, message, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in conversations(30)))
    assert prune(language_model, data, tmp_path / "pruned", *options) == 2
    assert message in capsys.readouterr().err


def test_the_command_that_repeats_it_is_kept(model, photos, tmp_path):
    import shlex

    prune(model, photos, tmp_path / "pruned", "--keep=9", "--seed=3", "--no-ifd")
    words = shlex.split(selection(tmp_path / "pruned")["command"])
    assert words[:2] == ["lc-engine", "prune"]
    assert "--seed" in words
    assert "--no-ifd" in words
    again = words[1:]
    again[again.index("--out") + 1] = str(tmp_path / "again")
    assert cli.run(again) == 3
    assert names(tmp_path / "again" / "data") == names(tmp_path / "pruned" / "data")


def test_a_folder_with_something_else_in_it_is_left_alone(model, photos, tmp_path, capsys):
    (tmp_path / "pruned" / "data").mkdir(parents=True)
    (tmp_path / "pruned" / "data" / "mine.txt").write_text("mine")
    assert prune(model, photos, tmp_path / "pruned", "--keep=9") == 2
    assert "holds data, which prune did not write" in capsys.readouterr().err
    assert names(tmp_path / "pruned") == ["data/mine.txt"]
    assert prune(model, photos, photos / "pruned", "--keep=9") == 2
    assert "inside the data" in capsys.readouterr().err


def test_select_writes_the_rows_themselves(model, photos, tmp_path, capsys):
    prune(model, photos, tmp_path / "pruned", "--keep=9")
    scores = str(tmp_path / "pruned" / "scores")
    command = ["select", scores, "--keep=6", "--strategy=easy", "--write", str(tmp_path / "out")]
    assert cli.run(command) == 0
    printed = capsys.readouterr().out
    assert "1 rows without a score are left out (1 unreadable)" in printed
    kept = lc.select(lc.ScoreTable.read(scores), 6, "easy")
    assert names(tmp_path / "out") == sorted(kept.tolist())
    assert cli.run(command) == 2
    assert "exists: name a new folder" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    (other / "ant" / "000.jpg").unlink()
    assert cli.run([*command[:-1], str(tmp_path / "two"), "--data", str(other)]) == 2
    assert "there are 30 rows, but scores of 31" in capsys.readouterr().err


def test_prune_is_a_function_too(model, tmp_path):
    pixels, labels = pictures(24)
    whole = datasets.Dataset.from_dict(
        {"image": [{"bytes": encode(image), "path": None} for image in pixels], "label": labels}
    ).cast_column("image", datasets.Image())
    checkpoint = model[1].partition("=")[2]
    scorer = lc.Scorer(
        "timm/test_resnet",
        checkpoint=checkpoint,
        image_size=32,
        path=lc.LearningPath.explicit([1.0]),
    )
    found = lc.prune(scorer, whole, 6, tmp_path / "pruned", strategy="easy")
    assert len(found.ids) == len(found.positions) == found.selection["rows"]["kept"] == 6
    read = datasets.load_from_disk(str(found.data))
    assert read["label"] == labels[found.positions].tolist()
    assert found.ids.tolist() == lc.select(found.scores, 6, "easy").tolist()
    arrays = (torch.zeros(9, 3, 32, 32), torch.arange(9) % 3)
    with pytest.raises(ValueError, match="is in memory and has no form on disk"):
        lc.prune(scorer, arrays, 3, tmp_path / "no")
    assert (tmp_path / "no" / "UNFINISHED").exists()


def test_a_score_folder_opens_with_pandas(model, photos, tmp_path):
    prune(model, photos, tmp_path / "pruned", "--keep=9")
    frame = pd.read_parquet(tmp_path / "pruned" / "scores")
    assert len(frame) == 31
    assert (
        frame["id"].tolist() == lc.ScoreTable.read(tmp_path / "pruned/scores").column("id").tolist()
    )


def test_csv_of_suspicious_rows_has_a_header_where_nothing_is_listed():
    from lc_engine.selection.suspicious import to_csv

    assert list(csv.reader(io.StringIO(to_csv({"row": [], "reason": []})))) == [["row", "reason"]]


@pytest.mark.parametrize("kind", ["features", "images", "lines"])
def test_a_full_disk_leaves_the_earlier_results(
    kind, features, model, photos, language_model, tmp_path, capsys
):
    resource = pytest.importorskip("resource")
    out, lines = tmp_path / "pruned", tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in conversations(60)))
    head = [f"--model={features / 'head.safetensors'}", f"--labels={features / 'y.npy'}"]
    options, data, code = {
        "features": (head, features / "x.npy", 0),
        "images": (model, photos, 3),
        "lines": (language_model, lines, 0),
    }[kind]
    assert prune(options, data, out, "--keep=12") == code
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        assert prune(options, data, out, "--keep=25") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "too large" in capsys.readouterr().err
    # Of the scores' folder the configuration is written again, and names the same run.
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--keep=0"], "keep must be a float in"),
        (["--keep=1.5"], "--keep must be a float in"),
        (["--keep=10%"], "0.1 is 10%"),
        (["--keep=0.1", "--by=label", "--share=a=0.7", "--share=b=0.6"], "sum to 1.3"),
        (["--keep=0.1", "--share=a=0.2", "--share=a=0.6"], "a has two, 0.2 and 0.6"),
        (["--keep=0.1", "--share=a=-1"], "share of a must be at least 0"),
        (["--keep=0.1", "--gamma=2"], "gamma must be"),
        (["--keep=0.1", "--gamma=0.2", "--strategy=herding"], "argument of flexrand"),
        (["--keep=0.1", "--noise-guard=1"], "--noise-guard must lie in"),
        (["--keep=0.1", "--floor=5", "--cap=2"], "floor 5 is above cap 2"),
    ],
)
def test_what_suits_no_data_is_refused_before_anything_is_scored(
    tmp_path, monkeypatch, capsys, given, message
):
    monkeypatch.setattr(lc.Scorer, "__init__", None)
    assert prune(["--model=efficientnet-lite0"], tmp_path, tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def ids_in(path, ids):
    path.write_text("".join(f"{one}\n" for one in ids))
    return path


@pytest.mark.parametrize(
    ("given", "always", "never", "message"),
    [
        (["--keep=31"], [], [], "asks for 31 rows, but the data have 30: give less"),
        (["--keep=30"], [], [3, 4], "have 30, of which"),
        (["--keep=2"], [1, 2, 5], [], "names 3 rows, but"),
        (["--keep=0.1"], [1, 2, 5, 6], [], "asks for 3: give more"),
    ],
)
def test_a_budget_that_the_rows_cannot_meet_is_refused_before_scoring(
    tmp_path, monkeypatch, capsys, given, always, never, message
):
    np.save(tmp_path / "x.npy", np.ones((30, 4), np.float32))
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    save_file({"weight": torch.ones(3, 4)}, tmp_path / "head.safetensors")
    model = [f"--model={tmp_path}/head.safetensors", f"--labels={tmp_path}/y.npy"]
    for name, ids in (("always", always), ("never", never)):
        if ids:
            given = [*given, f"--{name}-keep={ids_in(tmp_path / name, ids)}"]
    monkeypatch.setattr(lc.Scorer, "start_rows", None)
    assert prune(model, tmp_path / "x.npy", tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_prune_in_python_refuses_such_a_budget_too(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((30, 4), np.float32))
    np.save(tmp_path / "y.npy", np.arange(30) % 3)
    scorer = lc.Scorer(torch.nn.Linear(4, 3), head="linear", masking=lc.Masking(weights="head"))
    data = {"labels": tmp_path / "y.npy", "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="keep asks for 31 rows, but the data have 30"):
        lc.prune(scorer, tmp_path / "x.npy", 31, **data)
    with pytest.raises(FileNotFoundError):
        lc.prune(scorer, tmp_path / "nowhere.npy", 3, **data)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_never_kept_are_not_counted(tmp_path):
    scores = {"id": np.arange(9), "loss": np.arange(9.0), "label": np.zeros(9, int)}
    with pytest.raises(ValueError, match=r"in \[1, 7\]: never_keep names 2 of the 9 rows with"):
        decide(scores, 8, "easy", exceptions=Exceptions(never=np.array([0, 3])))


def test_more_rows_to_keep_in_any_case_than_the_budget_are_named(tmp_path):
    scores = {"id": np.arange(9), "loss": np.arange(9.0), "label": np.zeros(9, int)}
    with pytest.raises(ValueError, match="always_keep names 4 rows, but keep asks for 3"):
        decide(scores, 3, "easy", exceptions=Exceptions(np.arange(4)))


def test_a_pruned_folder_is_not_pruned_in_place(tmp_path, capsys):
    data = tmp_path / "pruned" / "data"
    data.mkdir(parents=True)
    np.save(data / "x.npy", np.ones((3, 2), np.float32))
    for one in (data, data / "x.npy"):
        assert prune(["--model=efficientnet-lite0"], one, tmp_path / "pruned", "--keep=1") == 2
        assert "which would be replaced: choose another folder" in capsys.readouterr().err
    assert names(data) == ["x.npy"]
