from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from helpers.realdata import image_files
from lc_engine.cli import main as cli
from lc_engine.data.table import ScoreTable

ROWS, WIDTH, CLASSES = 300, 12, 5


@pytest.fixture(autouse=True)
def _own_search_path(monkeypatch):
    """The command adds the current folder to the search path, for its own process."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])


@pytest.fixture
def features(tmp_path):
    """A feature set of 300 rows, four of them bad, and a linear head; returns the folder."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((CLASSES, WIDTH)).astype(np.float32)
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    y = (x @ weight.T).argmax(1)
    np.save(tmp_path / "clean.npy", x)
    np.save(tmp_path / "y.npy", y)
    x[5, 3], x[6, 0] = np.nan, np.inf
    y[9], y[200] = CLASSES, -1
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "bad_y.npy", y)
    save_file(
        {"fc.weight": torch.from_numpy(weight), "fc.bias": torch.zeros(CLASSES)},
        tmp_path / "head.safetensors",
    )
    return tmp_path


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "memory ran out: give it a smaller --batch-size"),
        (MemoryError("Unable to allocate 9 GiB"), "memory ran out (Unable to allocate 9 GiB): "),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory ran out (CUDA out of memory.)"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_an_error_without_a_text_has_one_line_that_says_what_to_do(
    monkeypatch, capsys, error, text
):
    def failing(*args, **options):
        raise error

    monkeypatch.setattr("lc_engine.cli.app.app", failing)
    assert cli.run(["score"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"lc-engine: {text}")
    assert printed.count("\n") == 1


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """20 real CIFAR-10 images in a folder per class, and a small ResNet's checkpoint."""
    import timm

    root = tmp_path_factory.mktemp("images")
    for name, content, label in image_files("cifar10"):
        (root / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        (root / "set" / str(label) / name).write_bytes(content)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", pretrained=False)
    save_file(model.state_dict(), root / "test_resnet.safetensors")
    return root


def score_features(folder, *more, data="clean.npy", labels="y.npy"):
    arguments = ["score", "--model", str(folder / "head.safetensors"), "--data", str(folder / data)]
    if labels:
        arguments += ["--labels", str(folder / labels)]
    return cli.run([*arguments, "--out", str(folder / "out"), *more])


def score_images(root, out, *more, data=None):
    return cli.run(
        [
            "score",
            "--model=timm/test_resnet",
            f"--checkpoint={root / 'test_resnet.safetensors'}",
            f"--data={data or root / 'set'}",
            f"--out={out}",
            "--image-size=32",
            "--path=gauss:2",
            *more,
        ]
    )


def error_line(capsys):
    """The one line on stderr, but for that of the masks if the run had begun."""
    captured = capsys.readouterr()
    assert captured.out == ""
    *notes, error = captured.err.splitlines(keepends=True)
    assert error.startswith("lc-engine: ")
    assert error.endswith("\n")
    assert all(note.startswith("masks: ") for note in notes)
    assert len(notes) < 2
    return error


def independent_scores(folder, capacities, weights, data, labels):
    """Plain loop: keep the largest |w|, softmax, mean over the path."""
    from safetensors.torch import load_file

    state = load_file(folder / "head.safetensors")
    x, y = torch.from_numpy(np.load(folder / data)), torch.from_numpy(np.load(folder / labels))
    lc = torch.zeros(len(x), dtype=torch.float64)
    magnitude = state["fc.weight"].abs()
    for capacity, omega in zip(capacities, weights, strict=True):
        count = round(capacity * magnitude.numel())
        threshold = magnitude.flatten().sort(descending=True).values[count - 1]
        masked = torch.where(magnitude >= threshold, state["fc.weight"], 0.0)
        p = (x @ masked.T + state["fc.bias"]).double().softmax(1)
        lc += omega * p[torch.arange(len(x)), y]
    return lc.numpy()


def test_a_feature_set_is_scored_and_the_configuration_kept(features, capsys):
    assert score_features(features, "--path", "linear:4:0.3:1.0", "--save-path") == 0
    out = capsys.readouterr().out
    assert out.startswith("300 rows in ")
    assert ": 300 ok; peak memory" in out
    table = ScoreTable.read(features / "out")
    np.testing.assert_array_equal(table.column("id"), np.arange(ROWS))
    assert table.column("path_log_probs").shape == (ROWS, 4)

    config = json.loads((features / "out" / "_config.json").read_text())
    assert config["head"] == "linear"  # resolved: the model is a linear head
    assert config["masking"]["weights"] == "head"
    assert config["num_workers"] >= 1
    path = config["path"]
    want = independent_scores(features, path["capacities"], path["weights"], "clean.npy", "y.npy")
    np.testing.assert_allclose(table.column("lc"), want, atol=1e-5)


def test_bad_rows_are_counted_kept_and_told_by_the_exit_code(features, capsys):
    arguments = ("--batch-size", "7", "--shard-rows", "64", "--json")
    assert score_features(features, *arguments, data="x.npy", labels="bad_y.npy") == 3
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["rows"] == ROWS
    assert summary["status"] == {"ok": ROWS - 4, "non_finite": 2, "bad_label": 2}
    table = ScoreTable.read(features / "out")
    bad = {i: s for i, s in enumerate(table.column("status")) if s != "ok"}
    assert bad == {5: "non_finite", 6: "non_finite", 9: "bad_label", 200: "bad_label"}
    assert score_features(features, *arguments[:-1], data="x.npy", labels="bad_y.npy") == 3
    out = capsys.readouterr().out
    assert "  2 bad_label, first in row 9: the label is 5, but the head has 5 classes\n" in out
    assert "  2 non_finite, first in row 5: the input has NaN or infinite values\n" in out
    assert '  each row: see the columns "status" and "detail"' in out


def test_every_kind_of_feature_file_gives_the_same_scores(features):
    from datasets import Dataset, List, Value

    x, y = np.load(features / "clean.npy"), np.load(features / "y.npy")
    assert score_features(features) == 0
    want = ScoreTable.read(features / "out").column("loss")
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH)
    pq.write_table(pa.table({"emb": column, "target": y}), features / "x.parquet")
    Dataset.from_dict({"emb": x.tolist(), "target": y.tolist()}).cast_column(
        "emb", List(Value("float32"))
    ).save_to_disk(features / "saved")
    save_file(
        {"emb": torch.from_numpy(x), "target": torch.from_numpy(y)}, features / "x.safetensors"
    )
    lines = zip(x.tolist(), y.tolist(), strict=True)
    (features / "x.jsonl").write_text(
        "".join(json.dumps({"emb": values, "target": label}) + "\n" for values, label in lines)
    )
    for data in ("x.parquet", "saved", "x.safetensors", "x.jsonl"):
        out = features / f"out-{data}"
        more = ("--label-column", "target", "--out", str(out), "--batch-size", "50")
        assert score_features(features, *more, data=data, labels=None) == 0
        np.testing.assert_allclose(ScoreTable.read(out).column("loss"), want, rtol=1e-6, atol=1e-6)


def test_a_file_that_is_left_out_is_told_and_the_exit_code_says_so(features, capsys):
    x, y = np.load(features / "clean.npy"), np.load(features / "y.npy")
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(x.ravel(), WIDTH), "label": y})
    (features / "set").mkdir()
    pq.write_table(table, features / "set" / "a.parquet")
    (features / "set" / "b.parquet").write_bytes(b"PAR1")
    assert score_features(features, data="set", labels=None) == 3
    captured = capsys.readouterr()
    assert "file left out" in captured.out
    assert "b.parquet cannot be read as Parquet" in captured.out
    manifest = json.loads((features / "out" / "_manifest.json").read_text())
    assert list(manifest["data"]["refused"]) == ["b.parquet"]
    assert score_features(features, "--json", data="set", labels=None) == 3
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == {"ok": ROWS}
    assert list(summary["refused"]) == ["b.parquet"]


@pytest.mark.parametrize("plain", [False, True])
def test_a_damaged_row_group_costs_its_rows_and_the_exit_code_says_so(features, capsys, plain):
    path, rows = features / "x.parquet", 100
    x, y = np.load(features / "clean.npy"), np.load(features / "y.npy")
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(x.ravel(), WIDTH), "label": y})
    options = {"use_dictionary": not plain, "write_page_checksum": True}
    pq.write_table(table, path, row_group_size=rows, compression="none", **options)
    column = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[(column.dictionary_page_offset or column.data_page_offset) + 300] ^= 1
    path.write_bytes(content)
    for out, cut in (("out", ()), ("other", ("--batch-size", "7", "--shard-rows", "130"))):
        more = ("--out", str(features / out), *cut)
        assert score_features(features, *more, data="x.parquet", labels=None) == 3
        assert (
            "100 unreadable, first in row 100: row group 1 of x.parquet" in capsys.readouterr().out
        )
        found = ScoreTable.read(features / out)
        assert found.status_counts() == {"ok": ROWS - rows, "unreadable": rows}
        assert set(found.column("status")[rows : 2 * rows]) == {"unreadable"}


def test_an_array_of_pickled_objects_is_refused(features, capsys):
    np.save(features / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    assert score_features(features, data="objects.npy") == 2
    assert "pickled Python objects" in error_line(capsys)


def test_real_images_with_a_broken_one(images, tmp_path, capsys):
    broken = sorted((images / "set").rglob("*.png"))[3]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    try:
        assert score_images(images, tmp_path / "out") == 3
    finally:
        broken.write_bytes(whole)
    name = broken.relative_to(images / "set").as_posix()
    assert f"1 unreadable, first in row 3 ({name}): OSError" in capsys.readouterr().out
    table = ScoreTable.read(tmp_path / "out")
    assert table.status_counts() == {"ok": 19, "unreadable": 1}
    assert list(table.column("id")) == sorted(
        file.relative_to(images / "set").as_posix() for file in (images / "set").rglob("*.png")
    )
    assert table.metadata["head"]["kind"] == "prototype"
    assert np.isfinite(table.column("lc")[table.column("status") == "ok"]).all()

    # The image is whole again, so the data are others, and the scores would not go together.
    assert score_images(images, tmp_path / "out") == 2
    assert "another run (data_digest:" in error_line(capsys)


def test_images_from_a_hugging_face_folder_score_as_from_an_image_folder(images, tmp_path):
    import datasets

    files = sorted((images / "set").rglob("*.png"))
    names = sorted({file.parent.name for file in files})
    datasets.Dataset.from_dict(
        {
            "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
            "label": [names.index(file.parent.name) for file in files],
        },
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        ),
    ).save_to_disk(tmp_path / "saved")
    assert score_images(images, tmp_path / "a", "--batch-size=8") == 0
    assert score_images(images, tmp_path / "b", data=tmp_path / "saved") == 0
    a, b = (ScoreTable.read(tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(a.column("label"), b.column("label"))
    np.testing.assert_allclose(a.column("loss"), b.column("loss"), rtol=1e-4)


@pytest.mark.parametrize(
    ("more", "path", "columns"),
    [
        (["--path=calibrated:3"], "calibrated", []),
        (["--path=geometric:8:0.1~fit3"], "geometric~fit3", []),
        (
            ["--path=clenshaw_curtis:5:0.5:1.0", "--tol=0.01"],
            "clenshaw_curtis",
            ["error", "points"],
        ),
        (["--path=geometric:8:0.1~2", "--dtype=auto"], "geometric~2", []),
        (["--masking=dropout", "--path=linear:2:0.8:0.9"], "linear", []),
        (["--masking=exits", "--head=knn", "--neighbours=3"], "exits", []),
    ],
)
def test_families_and_paths_by_option(images, tmp_path, capsys, more, path, columns):
    arguments = [
        "score", "--model=timm/test_resnet", f"--checkpoint={images / 'test_resnet.safetensors'}",
        f"--data={images / 'set'}", f"--out={tmp_path / 'out'}", "--image-size=32",
        *more,
    ]  # fmt: skip
    assert cli.run(arguments) == 0, capsys.readouterr().err
    table = ScoreTable.read(tmp_path / "out")
    assert table.metadata["path"]["name"] == path
    assert set(columns) <= set(table.column_names)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("part-*")}
    assert cli.run(arguments) == 0, capsys.readouterr().err  # all done: the run is taken up, whole
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").glob("part-*")} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--path=calibrated:many"], "write calibrated:8"),
        (["--masking=exits", "--head=prototype", "--path=gauss:2"], "exits bring their own points"),
        (["--tol=0.1", "--path=gauss:2"], "holds no coarser rule"),
    ],
)
def test_options_that_do_not_go_together(features, capsys, more, message):
    assert score_features(features, *more) == 2
    assert message in error_line(capsys)


def test_a_score_folder_of_another_run_is_refused(features, capsys):
    assert score_features(features) == 0
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in (features / "out").iterdir()}
    assert score_features(features, "--scope", "layer", "--path", "gauss:4") == 2
    line = error_line(capsys)
    assert "masking.scope: 'global' -> 'layer'" in line
    assert before == {file.name: file.read_bytes() for file in (features / "out").iterdir()}


def test_a_checkpoint_that_does_not_fit_names_its_keys(images, tmp_path, capsys):
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    more = f"--checkpoint={tmp_path / 'other.safetensors'}"
    assert score_images(images, tmp_path / "out", more) == 2
    line = error_line(capsys)
    assert "stem.weight" in line
    assert "missing" in line
    assert not (tmp_path / "out").exists()


def test_a_head_of_another_width(features, images, tmp_path, capsys):
    assert score_images(images, tmp_path / "out", "--head=linear", "--weights=head") == 2
    assert "the head has 1000 classes" in error_line(capsys)
    np.save(features / "clean.npy", np.zeros((ROWS, WIDTH + 1), np.float32))
    assert score_features(features) == 2
    line = error_line(capsys)
    assert str(WIDTH) in line
    assert str(WIDTH + 1) in line


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "nowhere.npy"}, "nowhere.npy does not exist"),
        ({"labels": "nowhere.npy"}, "nowhere.npy: no such file"),
        ({"labels": None}, "pass the .npy file of labels too"),
        ({"more": ["--path", "gaus:8"]}, "gaus:8"),
        ({"more": ["--device", "warp"]}, "--device warp"),
        ({"more": ["--model", "resnet18"]}, "timm/NAME"),
        ({"more": ["--temperature", "0"]}, "temperature"),
    ],
)
def test_input_that_does_not_fit_is_one_line(features, capsys, changed, message):
    more = changed.pop("more", [])
    assert score_features(features, *more, **changed) == 2
    assert message in error_line(capsys)


def test_usage_errors(capsys):
    for arguments in (["score"], ["nothing"], ["score", "--batch-size", "0"], ["select", "x"]):
        assert cli.run(arguments) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_strategy_is_answered_with_those_there_are(features, capsys):
    from lc_engine.selection import STRATEGIES

    score_features(features)
    capsys.readouterr()
    arguments = ("--keep", "0.1", "--strategy", "magic", "--out", str(features / "s.npy"))
    assert select(features, *arguments) == 2
    error = capsys.readouterr().err
    assert "'magic'" in error
    for name in STRATEGIES:
        assert f"'{name}'" in error
    assert not (features / "s.npy").exists()


@pytest.mark.parametrize(
    ("module", "extra"), [("pyarrow", "table"), ("typer", "cli"), ("rich", "cli")]
)
def test_a_missing_extra_says_what_to_install(features, capsys, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    assert score_features(features) == 2
    line = error_line(capsys)
    assert module in line
    assert f'pip install "lc_engine[{extra}]"' in line


def test_missing_vision_and_hf_extras(features, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert score_images(images, tmp_path / "out") == 2
    assert 'pip install "lc_engine[vision]"' in error_line(capsys)
    (features / "saved").mkdir()
    (features / "saved" / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert score_features(features, data="saved", labels=None) == 2
    assert 'pip install "lc_engine[hf]"' in error_line(capsys)


def test_a_machine_that_fails_is_not_the_user_s_fault(features, capsys, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScoreTable, "write", full)
    assert score_features(features) == 1
    assert "No space left" in error_line(capsys)


def test_a_factory_in_the_current_folder(features, monkeypatch, capsys):
    (features / "my_own_model.py").write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(\n"
        f"        torch.nn.Linear({WIDTH}, 8), torch.nn.ReLU(), torch.nn.Linear(8, {CLASSES}))\n"
    )
    monkeypatch.chdir(features)
    assert score_features(features, "--model", "my_own_model:make", "--path", "gauss:2") == 0
    assert score_features(features, "--model", "my_own_model:other") == 2
    assert "other" in capsys.readouterr().err


# Shards are written so slowly that a process on a busy machine is not done before it is stopped.
SLOW = """
import time
from lc_engine.cli.main import main
from lc_engine.data.run.ledger import Ledger

commit = Ledger.commit

def commit_slowly(*arguments):
    time.sleep(0.1)
    commit(*arguments)

Ledger.commit = commit_slowly
main()
"""


def child(features, out):
    return subprocess.Popen(
        [
            *(sys.executable, "-c", SLOW, "score"),
            *("--model", str(features / "head.safetensors"), "--data", str(features / "clean.npy")),
            *("--labels", str(features / "y.npy"), "--out", str(out)),
            *("--batch-size", "10", "--shard-rows", "10"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in a shell's background ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_continues_to_the_same_table(features, number, code):
    out, parts = features / "stopped", "part-*-of-00030.parquet"
    with child(features, out) as process:
        while len(list(out.glob(parts))) < 5 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert "the same command continues" in errors
    assert 5 <= len(list(out.glob(parts))) < 30
    done = {file.name: file.stat().st_mtime_ns for file in out.glob(parts)}
    more = ("--batch-size", "10", "--shard-rows", "10", "--out", str(out))
    assert score_features(features, *more) == 0
    assert all((out / name).stat().st_mtime_ns == time for name, time in done.items())
    assert score_features(features, *more[:-1], str(features / "whole")) == 0
    whole = {f.name: f.read_bytes() for f in (features / "whole").glob("part-*")}
    assert whole == {f.name: f.read_bytes() for f in out.glob("part-*")}
    assert not list(out.glob("*.tmp"))


def test_plan_says_what_a_job_takes_and_writes_nothing(features, capsys, monkeypatch):
    monkeypatch.setattr("lc_engine.scoring.estimate._BUDGET_SECONDS", 0.0)
    arguments = ["plan", "--model", str(features / "head.safetensors")]
    arguments += ["--data", str(features / "x.npy"), "--labels", str(features / "bad_y.npy")]
    before = sorted(features.iterdir())
    assert cli.run([*arguments, "--workers", "8"]) == 0
    words = capsys.readouterr().out
    assert words.startswith("300 rows, judged by the first 16 on cpu")
    assert "with 8 workers" in words
    assert cli.run([*arguments, "--workers", "2", "--batch-size", "7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["batch_size"] == 7
    assert found["seconds_with_workers"] <= found["seconds"]
    assert sorted(features.iterdir()) == before
    assert cli.run([*arguments[:3], "--data", str(features / "none.npy")]) == 2


def test_an_option_of_other_commands_is_refused_with_their_names(capsys):
    job = ["plan", "--model=m", "--data=d"]
    assert cli.run([*job, "--keep=0.1"]) == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "--keep is no option of plan, but of prune, select" in shown
    assert "Possible options" not in shown
    assert cli.run([*job, "--colour=red"]) == 2
    assert "No such option: --colour" in capsys.readouterr().err


def test_the_rate_of_a_run_is_that_of_its_rows_and_seconds(images, tmp_path, capsys):
    """Also where all sub-models ran while the head learnt, so that the last phase took no time."""
    arguments = ("--json", "--batch-size=5")
    score_images(images, tmp_path / "out", *arguments)
    found = json.loads(capsys.readouterr().out)
    assert found["rows_per_second"] == pytest.approx(found["rows"] / found["seconds"], rel=0.01)
    score_images(images, tmp_path / "out", *arguments)  # nothing is left to score
    assert json.loads(capsys.readouterr().out)["rows_per_second"] is None


def select(folder, *more):
    return cli.run(["select", str(folder / "out"), *more])


@pytest.mark.parametrize(
    ("keep", "kept"), [("0.1", 30), ("1.0", 296), ("1", 1), ("37", 37), (".5", 148)]
)
def test_select_keeps_a_fraction_or_a_number(features, capsys, keep, kept):
    score_features(features, data="x.npy", labels="bad_y.npy")
    capsys.readouterr()
    out = features / "subset.npy"
    more = ("--keep", keep, "--out", str(out), "--strategy", "hard", "--by", "none", "--json")
    assert select(features, *more) == 0
    summary = json.loads(capsys.readouterr().out)
    by = {"strategy": "hard", "gamma": None, "noise_guard": 0.0, "method": "hard"}
    summary.pop("unscored")
    assert summary == {"out": str(out), "kept": kept, "rows": 296, "keep": float(keep)} | by
    ids = np.load(out)
    table = ScoreTable.read(features / "out")
    loss = table.column("loss")
    hardest = np.argsort(-np.nan_to_num(loss, nan=-1), kind="stable")[:kept]
    assert set(ids.tolist()) == set(hardest.tolist())


def test_select_streamed(features, capsys):
    score_features(features, data="x.npy", labels="bad_y.npy")
    out = features / "subset.npy"
    arguments = ("--keep", "0.2", f"--out={out}", "--strategy=easy")
    assert select(features, *arguments) == 0
    whole = np.load(out)
    assert select(features, *arguments, "--streamed") == 0
    np.testing.assert_array_equal(np.load(out), whole)
    capsys.readouterr()
    for given in ("--noise-guard=0.1", "--balance=1", "--objective=as-is"):
        assert select(features, *arguments, "--streamed", given) == 2
        name = given.partition("=")[0]
        assert f"{name} needs all rows in memory" in error_line(capsys)


def test_select_writes_three_kinds_of_file(images, tmp_path):
    assert score_images(images, tmp_path / "out") == 0
    for suffix in ("npy", "txt", "parquet"):
        out = tmp_path / "deep" / f"subset.{suffix}"
        more = ("--keep", "7", "--out", str(out), "--gamma", "0.3", "--seed", "4")
        assert select(tmp_path, *more) == 0
    ids = np.load(tmp_path / "deep" / "subset.npy")
    assert len(set(ids.tolist())) == 7
    assert (tmp_path / "deep" / "subset.txt").read_text().splitlines() == ids.tolist()
    table = ScoreTable.read(tmp_path / "deep" / "subset.parquet")
    assert sorted(table.column("id")) == sorted(ids.tolist())
    assert table.metadata == ScoreTable.read(tmp_path / "out").metadata


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep", "1.5"], "keep must be"),
        (["--keep", "0"], "keep"),
        (["--keep", "0.1", "--gamma", "2"], "gamma must be"),
        (["--keep", "0.1", "--by", "colour"], "colour"),
        (["--keep", "0.1", "--out", "subset.csv"], "must end with .npy, .parquet, .txt"),
        (["--keep", "0.1", "--strategy", "kcenter"], "features"),
    ],
)
def test_select_refuses_in_one_line(features, capsys, more, message):
    score_features(features)
    capsys.readouterr()
    assert select(features, "--out", str(features / "s.npy"), *more) == 2
    assert message in error_line(capsys)
    assert not (features / "s.npy").exists()


def test_select_without_scores(tmp_path, capsys):
    assert select(tmp_path, "--keep", "1", "--out", str(tmp_path / "s.npy")) == 2
    assert "does not exist" in error_line(capsys)
    assert select(tmp_path, "--keep", "x", "--out", str(tmp_path / "s.npy")) == 2
    assert "not a number" in capsys.readouterr().err


def test_help_needs_neither_torch_nor_a_second():
    code = (
        "import sys; from lc_engine.cli import main as cli; "
        "codes = [cli.run([*a, '--help']) for a in ([], ['score'], ['select'])]; "
        "heavy = {'torch', 'numpy', 'triton', 'pyarrow', 'timm'} & set(sys.modules); "
        "print('codes', codes, 'heavy', heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("codes [0, 0, 0] heavy set()")


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_soon_leave_the_core_to_others(given, spins, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lc-engine", "--version"])
    monkeypatch.setattr(os, "environ", dict(given))
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_version(capsys):
    from importlib.metadata import version

    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"lc-engine {version('lc_engine')}\n"


def slowly(function, seconds=0.2):
    def slow(*arguments, **options):
        time.sleep(seconds)
        return function(*arguments, **options)

    return slow


def test_whatever_takes_long_prints_lines_when_piped(features, capsys, monkeypatch):
    from lc_engine.models.load import ModelSpec
    from lc_engine.pruning import choice
    from lc_engine.scoring.progress import Progress

    monkeypatch.setitem(Progress.__init__.__kwdefaults__, "every", 0.02)
    monkeypatch.setattr(ModelSpec, "load", slowly(ModelSpec.load))
    assert score_features(features) == 0
    assert "opening model and data: 0:00:00 so far\n" in capsys.readouterr().err
    monkeypatch.setattr(choice, "decide", slowly(choice.decide))
    assert select(features, "--keep=0.1", "--out", str(features / "s.npy")) == 0
    assert "choosing rows by auto: 0:00:00 so far\n" in capsys.readouterr().err
