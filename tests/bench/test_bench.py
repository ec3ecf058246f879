from __future__ import annotations

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lc_engine as lc
from helpers import tiny_encoder, tiny_image_text
from helpers.networks import SmallNet
from helpers.realdata import image_files
from lc_engine.bench import DisagreementError, measure, parity, report, ways
from lc_engine.bench.images import image_job
from lc_engine.bench.jobs import own_job, own_language_job
from lc_engine.bench.linear import linear_job
from lc_engine.bench.machine import Machine, Work
from lc_engine.bench.outputs import output_job
from lc_engine.bench.roofline import call
from lc_engine.bench.rows import some_rows
from lc_engine.cli import exit_codes
from lc_engine.cli import main as cli
from lc_engine.cli.bench_options import BenchOptions
from lc_engine.data.open import open_source
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.heads.loss import token_nll
from lc_engine.kernels import floors

MACHINE = Machine(1e9, 4e9, 1e9, 2, 2, "a processor", ["amx_bf16"], {"python": "3"})
WIDTH, CLASSES, ROWS = 24, 5, 160


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(ROWS, WIDTH, generator=generator)
    return values, torch.randint(0, CLASSES, (ROWS,), generator=generator)


@pytest.fixture(scope="module")
def head():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Linear(WIDTH, CLASSES)


def without_compiler(job):
    compiled = (ways.COMPILED, ways.FROZEN)
    return dataclasses.replace(job, ways=[w for w in job.ways if w.name not in compiled])


@pytest.fixture
def job(features, head):
    path = lc.LearningPath.geometric(8, 0.1)
    return without_compiler(linear_job("a head", head, ArraySource(*features), path, 64))


def replaced(job, name, run):
    return dataclasses.replace(
        job, ways=[dataclasses.replace(w, run=run) if w.name == name else w for w in job.ways]
    )


@pytest.mark.slow
def test_every_way_of_a_head_gives_the_engine_s_scores(job):
    found = measure(job, rounds=2, say=lambda _: None)
    assert [way.name for way in found.ways] == [
        "naive loop", "released way", "bfloat16 loop", "engine"
    ]  # fmt: skip
    for way in found.ways[1:]:
        assert way.parity.agrees
        assert way.seconds > 0
    assert found.ways[-1].parity.difference < 1e-5
    assert 1e-5 < found.ways[2].parity.difference < 0.05, "bfloat16 rounds"
    assert (found.rows, found.scored, found.sub_models, found.forwards) == (ROWS, ROWS, 8, 8)
    assert {(cost.sub_models, cost.rows) for cost in found.costs} == {
        (2, 160), (4, 160), (8, 40), (8, 80), (8, 160)
    }  # fmt: skip


@pytest.mark.slow
def test_images_are_scored_the_same_by_every_way():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(48, 3, 8, 8, generator=generator)
    pairs = [(x, i % 3) for i, x in enumerate(inputs)]
    pairs[5] = (torch.full((3, 8, 8), torch.nan), 1)
    model = SmallNet(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = image_job("a net", model, open_source(pairs), lc.LearningPath.gauss(4, 0.3, 1), 16)
    found = measure(without_compiler(made), rounds=1, say=lambda _: None)
    assert found.scored == 47
    assert found.forwards == 5
    assert found.work.flops > 0
    for way in found.ways[1:]:
        assert way.parity.agrees, way
        assert way.seconds > 0
    assert next(w for w in found.ways if w.name == ways.ENGINE).parity.difference < 1e-5
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.slow
def test_torch_compile_gives_the_same_scores(features, head):
    path = lc.LearningPath.geometric(4, 0.1)
    made = linear_job("a head", head, ArraySource(*features), path, 64)
    by_name = {way.name: way for way in made.ways}
    want = by_name[ways.NAIVE].run(made.source, path)
    np.testing.assert_allclose(by_name[ways.COMPILED].run(made.source, path), want, atol=1e-5)


@pytest.mark.slow
def test_a_network_is_compiled_once_per_sub_model_with_frozen_weights(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 3, 8, 8, generator=generator)
    source = open_source([(x, i % 3) for i, x in enumerate(inputs)])
    made = image_job("a net", SmallNet(1), source, lc.LearningPath.gauss(2, 0.3, 1), 16)
    by_name = {way.name: way for way in made.ways}
    compiled, real = [], torch.compile

    def counted(model, **options):
        compiled.append(model)
        return real(model, **options)

    monkeypatch.setattr(torch, "compile", counted)
    want = by_name[ways.NAIVE].run(source, made.path)
    found = [by_name[ways.FROZEN].run(source, made.path) for _ in range(2)]
    assert len(compiled) == 3  # two sub-models, and the whole network for the prototypes
    np.testing.assert_array_equal(*found)
    assert parity.compare(want, found[0], 0.5, parity.ROUNDED).agrees
    many = lc.LearningPath.geometric(20, 0.05)
    with pytest.raises(ValueError, match="more than 16 sub-models"):
        by_name[ways.FROZEN].run(source, many)


def permuted(lc):
    return lc[::-1].copy()


WRONG = {
    "rows in another order": permuted,
    "a sub-model too few": lambda lc: lc * 7 / 8,
    "upside down": lambda lc: 1 - lc,
    "one wrong row": lambda lc: np.where(np.arange(len(lc)) == 3, 1 - lc, lc),
    "a constant": lambda lc: np.full_like(lc, lc.mean()),
    "a row missing": lambda lc: lc[:-1],
    "not a number": lambda lc: np.where(np.arange(len(lc)) == 9, np.nan, lc),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.slow
def test_a_wrong_engine_gets_no_speed(job, kind):
    right = next(way.run for way in job.ways if way.name == ways.ENGINE)
    calls = []

    def run(rows, path):
        calls.append(len(rows))
        return WRONG[kind](right(rows, path))

    with pytest.raises(DisagreementError, match="no speed is given") as caught:
        measure(replaced(job, ways.ENGINE, run), say=lambda _: None)
    assert "'engine' are not those of 'naive loop'" in str(caught.value)
    assert calls == [ROWS], "it was not timed"


@pytest.mark.slow
def test_another_way_that_is_wrong_is_listed_without_a_speed(job):
    right = next(way.run for way in job.ways if way.name == ways.BFLOAT16)
    wrong = replaced(job, ways.BFLOAT16, lambda rows, path: permuted(right(rows, path)))
    found = measure(wrong, rounds=1, say=lambda _: None)
    (way,) = [way for way in found.ways if way.name == ways.BFLOAT16]
    assert way.seconds is None
    assert way.reason == "its scores differ too much"
    text = report.as_text([found], MACHINE, "again")
    (line,) = [line for line in text.splitlines() if line.startswith("bfloat16 loop")]
    assert "×" not in line
    kept = json.loads(report.as_json([found], MACHINE, "again"))["jobs"][0]["ways"][2]
    assert kept["seconds"] is None
    assert kept["parity"]["agrees"] is False
    assert "rows_per_second" not in kept


@pytest.mark.slow
def test_a_compiler_that_fails_is_named(job):
    def run(rows, path):
        raise RuntimeError("no C++ compiler\nat all")

    broken = dataclasses.replace(job, ways=[*job.ways, ways.Way(ways.COMPILED, run, optional=True)])
    way = measure(broken, rounds=1, say=lambda _: None).ways[-1]
    assert way.seconds is None
    assert way.reason == "did not run: RuntimeError: no C++ compiler"
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        measure(replaced(job, ways.RELEASED, run), say=lambda _: None)


def test_ties_may_be_exchanged_among_the_kept():
    reference = np.array([0.1, 0.5, 0.5 + 1e-8, 0.9])
    found = reference + np.array([0, 2e-8, 0, 0])
    assert parity.compare(reference, found, 0.5, parity.EXACT).agrees
    assert parity.compare(reference, found, 0.5, parity.EXACT).same == 2
    swapped = parity.compare(reference, np.array([0.1, 0.9, 0.5, 0.5]), 0.5, parity.ROUNDED)
    assert (swapped.kept, swapped.same) == (2, 1)
    constant = np.full(4, 0.5)
    assert parity.compare(constant, constant, 0.5, parity.EXACT).correlation == 1


def test_spearman_s_correlation_is_scipy_s():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 50) / 6, rng.random(50)
    found = parity.compare(a, b, 0.1, parity.ROUNDED).correlation
    assert found == pytest.approx(stats.spearmanr(a, b).statistic)


def test_rows_of_images_are_spread_and_features_come_first(features):
    pairs = [(torch.full((2,), float(i)), i // 10) for i in range(40)]
    some = some_rows(open_source(pairs), 4)
    (batch,) = some.batches(8)
    assert batch.ids.tolist() == [0, 13, 26, 39]
    assert batch.labels.tolist() == [0, 1, 2, 3]
    assert batch.inputs[:, 0].tolist() == [0, 13, 26, 39]
    first = some_rows(ArraySource(*features), 10)
    assert [len(b) for b in first.batches(8)] == [8, 2]
    assert first.describe()["of"] == ROWS
    source = ArraySource(*features)
    assert some_rows(source, ROWS) is source


def test_the_table_and_the_json_say_the_same(job):
    found = measure(job, rounds=1, say=lambda _: None)
    found = dataclasses.replace(
        found,
        ways=[dataclasses.replace(w, seconds=i + 1.0) for i, w in enumerate(found.ways)],
        reading=0.4,
        work=Work(flops=500_000_000, bytes=10),
    )
    text = report.as_text([found], MACHINE, "lc-engine bench --rows 160")
    (line,) = [line for line in text.splitlines() if line.startswith("released way")]
    assert line.split()[2:4] == ["80.0", "0.50×"]  # 160 rows in 2 s; the engine takes 4
    assert "8 dense forwards at this machine's float32 peak: 4 s, 100 %" in text
    assert "10 % of the engine's time" in text
    assert "a processor (amx_bf16), 2 processors" in text
    assert text.endswith("again: lc-engine bench --rows 160")
    kept = json.loads(report.as_json([found], MACHINE, "c"))
    assert kept["machine"]["versions"] == {"python": "3"}
    job = kept["jobs"][0]
    assert job["ways"][1]["times_the_engine"] == 0.5
    assert job["roofline_seconds"] == 4
    assert job["decode_share_of_engine"] == pytest.approx(0.1)


@pytest.fixture
def files(tmp_path, features, head):
    np.save(tmp_path / "x.npy", features[0].numpy())
    np.save(tmp_path / "y.npy", features[1].numpy())
    save_file({"weight": head.weight, "bias": head.bias}, tmp_path / "head.safetensors")
    return tmp_path


@pytest.mark.slow
def test_the_command_measures_files_and_can_be_repeated(files, capsys):
    arguments = [
        "bench", "--model", str(files / "head.safetensors"), "--data", str(files / "x.npy"),
        "--labels", str(files / "y.npy"), "--rows", "100", "--rounds", "1",
        "--path", "geometric:6:0.1", "--out", str(files / "out" / "bench.json"),
    ]  # fmt: skip
    assert cli.run(arguments) == exit_codes.FINISHED
    captured = capsys.readouterr()
    assert "head.safetensors on x.npy: 100 of 100 rows, 6 sub-models" in captured.out
    kept = json.loads((files / "out" / "bench.json").read_text())
    assert kept["jobs"][0]["rows"] == 100
    assert kept["machine"]["flops"] > 0
    assert kept["machine"]["bandwidth"] > 0
    again = shlex.split(kept["command"])
    assert again[0] == "lc-engine"
    assert set(arguments) <= set(again)


@pytest.mark.slow
def test_the_command_refuses_a_wrong_engine(files, capsys, monkeypatch):
    real = linear_job

    def wrong(*arguments):
        return replaced(real(*arguments), ways.ENGINE, lambda rows, path: np.zeros(len(rows)))

    monkeypatch.setattr("lc_engine.bench.jobs.linear_job", wrong)
    arguments = [
        "bench", "--model", str(files / "head.safetensors"), "--data", str(files / "x.npy"),
        "--labels", str(files / "y.npy"), "--path", "geometric:3:0.1",
        "--out", str(files / "bench.json"),
    ]  # fmt: skip
    assert cli.run(arguments) == exit_codes.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "rows/s" not in captured.err
    assert "no speed is given" in captured.err
    assert not (files / "bench.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m"], "--model and --data go together"),
        (["--path", "gauss:3"], "--path needs --model and --data"),
        (["--keep", "0"], "--keep must lie in"),
        (["--language", "--labels", "y.npy"], "--labels does not go with a language model"),
        (["--language", "--model", "m", "--data", "x"], "leave out --model"),
        (["--model", "no/such", "--data", "x"], "model 'no/such' is not known"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, capsys):
    assert cli.run(["bench", *arguments]) == exit_codes.BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_head_does_not_go_with_images(files, tmp_path, capsys):
    for name, content, label in image_files("cifar10")[:4]:
        (tmp_path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / str(label) / name).write_bytes(content)
    arguments = ["--model", str(files / "head.safetensors"), "--data", str(tmp_path / "set")]
    assert cli.run(["bench", *arguments]) == exit_codes.BAD_INPUT
    assert "do not go together" in capsys.readouterr().err


@pytest.mark.slow
def test_instructions_are_scored_the_same_by_every_way(tmp_path, capsys):
    """The command on a tiny language model in a folder; its rows have an answer or none."""
    from helpers import tiny_language_model as tiny

    model, tokenizer = tiny.model(), tiny.tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"how many {'x' * i}", "completion": str(i) * (i % 5)} for i in range(30)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = language_job_of(tmp_path)
    found = measure(without_compiler(made), rounds=1, say=lambda _: None)
    assert (found.rows, found.scored) == (24, 19)
    for way in found.ways[1:]:
        assert way.parity.agrees, way
    assert found.ways[-2].parity.difference < 1e-5
    arguments = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "talk.jsonl")]
    assert cli.run(["bench", *arguments, "--image-size", "3"]) == exit_codes.BAD_INPUT
    assert "--image-size does not go with a language model" in capsys.readouterr().err


def test_batches_of_similar_length_give_a_row_what_it_gets_alone():
    from helpers import tiny_language_model as tiny
    from lc_engine.bench import language
    from lc_engine.language.tokens import Tokens

    model, sizes = tiny.model(), []
    generator = np.random.default_rng(0)
    lengths = generator.permutation([3, 200, 40, 199, 41, 5, 180, 170, 160, 150])
    rows = [
        Tokens(generator.integers(2, 270, n), np.arange(n) % 3 == 2 if n > 3 else np.arange(n) > 1)
        for n in lengths
    ]

    def forward(**inputs):
        sizes.append(tuple(inputs["input_ids"].shape))
        return model(**inputs)

    with torch.no_grad():
        found, each = language._batched(forward, rows), language._each(model, rows)
    assert sizes == [(5, 200), (5, 150)]  # at most 1,024 tokens
    np.testing.assert_allclose(found, each, atol=1e-6)


def language_job_of(folder):
    """The job that the command makes of a folder with a model and rows."""
    options = BenchOptions(
        model=str(folder / "model"), data=folder / "talk.jsonl", path="gauss:3:0.5:1.0", rows=24
    )
    (job,) = options.jobs(folder, say=print)
    return job


def test_the_roofline_names_every_launch_and_says_that_nothing_was_measured(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.run(["bench", "--roofline"]) == exit_codes.FINISHED
    text = capsys.readouterr().out
    for launch in floors.LAUNCHES:
        assert launch.name in text
    assert "H100" in text
    assert "measured: nothing" in text


SMALL = {"N": 5, "T": 5, "M": 5, "D": 8, "H": 6, "C": 4, "V": 9, "E": 7, "K": 3, "weights": 100}


@pytest.mark.parametrize("launch", floors.LAUNCHES, ids=lambda launch: launch.name)
def test_every_launch_of_the_roofline_runs(launch):
    small = dataclasses.replace(launch, sizes={name: SMALL[name] for name in launch.sizes})
    found = call(small, "cpu")()
    scores = getattr(found, "lc", found)
    if launch.operator != "apply_thresholds":
        assert scores.isfinite().all()
        assert scores.numel() > 0


def test_texts_are_scored_in_all_ways_alike(tmp_path):
    folder = tiny_encoder.save(tmp_path / "model", "Bert", "Model")
    rows = [{"text": text, "label": i % 3} for i, text in enumerate(tiny_encoder.texts(40))]
    job = own_job(folder, rows_file(tmp_path / "rows.jsonl", rows), path="explicit:1,0.6")
    found = measure(job, rounds=1, keep=0.5, say=lambda _: None)
    names = {way.name: way for way in found.ways}
    assert names[ways.ENGINE].parity.difference < 1e-5
    assert names[ways.BFLOAT16].seconds is not None
    assert found.seconds(ways.ENGINE) > 0


MODULE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, 4))

def gauss(outputs, targets):
    return (outputs[:, :2] - targets).square().sum(1) / 2
"""
TARGETS = {
    "loss": lambda rng: rng.standard_normal((64, 2)),
    "soft": lambda rng: rng.integers(0, 9, (64, 4)) + np.eye(4, dtype=int)[rng.integers(0, 4, 64)],
    "none": lambda rng: np.zeros(64, np.int64),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_loss_votes_and_no_labels_are_scored_in_all_ways_alike(
    kind, tmp_path, monkeypatch, capsys
):
    (tmp_path / "bench_kind.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 6)).astype(np.float32), TARGETS[kind](rng)
    if kind == "loss":
        y[3] = np.nan  # not finite in every way
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    how = ["--loss", "bench_kind:gauss"] if kind == "loss" else ["--label-kind", kind]
    arguments = [
        "bench", "--model", "bench_kind:model", "--data", str(tmp_path / "x.npy"), *how,
        "--labels", str(tmp_path / "y.npy"), "--path", "explicit:1,0.5", "--rounds", "1",
        "--keep", "0.5", "--out", str(tmp_path / "bench.json"),
    ]  # fmt: skip
    assert cli.run(arguments) == exit_codes.FINISHED
    (job,) = json.loads((tmp_path / "bench.json").read_text())["jobs"]
    assert job["scored"] == 64 - (kind == "loss")
    found = {way["name"]: way for way in job["ways"]}
    assert found[ways.ENGINE]["parity"]["difference"] < 1e-5
    assert found[ways.ENGINE]["seconds"] > 0
    assert 1e-6 < found[ways.BFLOAT16]["parity"]["difference"] < 0.05, "bfloat16 rounds"
    assert job["work"]["flops"] == 64 * 2 * (6 * 32 + 32 * 4)


def test_rows_with_another_number_of_votes_than_classes_are_left_out_in_all_ways():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    inputs = torch.from_numpy(rng.standard_normal((64, 6)).astype(np.float32))
    votes = [torch.from_numpy(rng.integers(1, 9, 3 if i == 5 else 4)) for i in range(64)]
    source = open_source(list(zip(inputs, votes, strict=True)), label_kind="soft")
    path = lc.LearningPath.explicit([1, 0.5])
    job = output_job("votes", model, source, path, batch_size=16, head="soft")
    found = measure(job, rounds=1, keep=0.5, say=lambda _: None)
    assert found.scored == 63
    assert {way.name: way for way in found.ways}[ways.ENGINE].parity.difference < 1e-5


def test_words_under_a_loss_are_scored_in_all_ways_alike(tmp_path):
    classes = {"num_labels": 3}
    folder = tiny_encoder.save(tmp_path / "model", "Bert", "ForTokenClassification", **classes)
    words = [text.split() for text in tiny_encoder.texts(40)]
    rows = [{"tokens": one, "ner_tags": [i % 3 for i in range(len(one))]} for one in words]
    data = rows_file(tmp_path / "rows.jsonl", rows)
    job = own_job(folder, data, path="explicit:1,0.6", head=lc.Loss(token_nll))
    found = {way.name: way for way in measure(job, rounds=1, keep=0.5, say=lambda _: None).ways}
    assert found[ways.ENGINE].parity.difference < 1e-5
    assert found[ways.BFLOAT16].parity.agrees


def test_conversations_with_images_are_scored_in_all_ways_alike(tmp_path):
    folder = tiny_image_text.save(tmp_path / "model", "qwen")
    rows = []
    for i in range(32):
        asked = {"role": "user", "content": f"{'<image>' * (i % 4 > 0)}hello {i * 'in'}"}
        rows.append({"messages": [asked, {"role": "assistant", "content": f"it is {i}"}]})
        if i % 4:
            tiny_image_text.picture(i).save(tmp_path / f"{i}.png")
            rows[-1]["images"] = [f"{i}.png"]
    data = rows_file(tmp_path / "rows.jsonl", rows)
    job = own_language_job(folder, data, path="explicit:1,0.6")
    found = {way.name: way for way in measure(job, rounds=1, keep=0.5, say=lambda _: None).ways}
    assert found[ways.ENGINE].parity.difference < 1e-5
    assert found[ways.ENGINE].seconds > 0
    assert ways.COMPILED not in found
    assert len(found) == 4


def test_a_benchmark_of_a_loss_is_not_of_a_head(files, capsys):
    arguments = [
        "bench", "--model", str(files / "head.safetensors"), "--data", str(files / "x.npy"),
        "--labels", str(files / "y.npy"), "--label-kind", "none",
    ]  # fmt: skip
    assert cli.run(arguments) == exit_codes.BAD_INPUT
    assert "layers before its classifier" in capsys.readouterr().err


def rows_file(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_few_kept_rows_that_differ_ask_for_more():
    tolerance = parity.Tolerance(0.1, 0.9, 0.7)
    lc, swapped = np.arange(16.0) / 100, np.arange(16.0) / 100
    swapped[[1, 2]] = swapped[[2, 1]]
    few, many = (parity.compare(lc, swapped, keep, tolerance) for keep in (0.1, 0.5))
    assert not few.agrees
    assert few.disagreement == "another row among 2 kept: give more --rows"
    assert many.agrees
    other = parity.compare(lc, lc[::-1], 0.1, tolerance)
    assert other.disagreement == "its scores differ too much"
