"""A run says what its masks reach, and runs equal sub-models once."""

from __future__ import annotations

import json
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.cli import main as cli
from lc_engine.language.scorer import CausalLMScorer
from lc_engine.masking import MaskingWarning
from lc_engine.scoring.estimate import plan

PATH = lc.LearningPath.explicit([1.0, 0.9, 0.8, 0.3])
ONE = "capacities 1, 0.9, 0.8 are one sub-model, which runs once"


class Counting(nn.Module):
    """Counts its forwards, over all copies."""

    calls = 0

    def forward(self, x):
        Counting.calls += 1
        return x


def ternary(module):
    """A third of each weight is zero."""
    generator = torch.Generator().manual_seed(4)
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and name not in ("3", "lm_head"):
            shape = layer.weight.shape
            layer.weight.data = (torch.randint(3, shape, generator=generator) - 1).float() / 4
    return module


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Nothing but the counter behind the masked layers, which no cache may leave out.
        return ternary(
            nn.Sequential(nn.Linear(12, 40), nn.Linear(40, 24), Counting(), nn.Linear(24, 3))
        )


def features():
    rng = np.random.default_rng(0)
    return rng.standard_normal((30, 12)).astype(np.float32), np.arange(30) % 3


@pytest.mark.parametrize("head", ["linear", "prototype", "knn"])
def test_equal_submodels_run_once_and_score_as_if_all_had_run(head):
    inputs, labels = features()
    model, path = network(), lc.LearningPath.explicit([1.0, 0.3])
    scorer = lc.Scorer(model, head=head, path=PATH, classifier="3", neighbours=3)
    with pytest.warns(MaskingWarning, match=ONE):
        table = lc.score(scorer, (inputs, labels), return_path=True)
    found = table.column("path_log_probs")
    apart = lc.score(
        lc.Scorer(model, head=head, path=path, classifier="3", neighbours=3),
        (inputs, labels),
        return_path=True,
    ).column("path_log_probs")
    assert np.array_equal(found, apart[:, [0, 0, 0, 1]])
    p = np.exp(found.astype(np.float64))
    np.testing.assert_allclose(table.column("lc"), p @ np.array(PATH.weights), rtol=1e-6)

    batch = torch.from_numpy(inputs)
    Counting.calls = 0
    scorer._views(batch).features(batch, range(4))
    few = Counting.calls
    Counting.calls = 0
    scorer._views(batch).features(batch, [0, 3])
    assert few == Counting.calls


def test_equal_submodels_of_a_language_model_run_once():
    rows = tiny.random_rows(np.random.default_rng(2), 6)
    tables = []
    warned = pytest.warns(MaskingWarning, match="self_attn|mlp")
    for path, told in ((PATH, warned), (lc.LearningPath.explicit([1.0, 0.3]), nullcontext())):
        scorer = CausalLMScorer(ternary(tiny.model()), tiny.tokenizer(), path=path)
        with told:
            tables.append(lc.score(scorer, rows, return_path=True))
        assert sorted(scorer._load().family.groups()) == [[0], [len(path) - 1]]
    found, apart = (table.column("path_log_probs") for table in tables)
    assert np.array_equal(found, apart[:, [0, 0, 0, 1]])
    assert np.array_equal(tables[0].column("perplexity"), tables[1].column("perplexity"))


def test_the_manifest_has_the_account_and_a_run_without_it_continues(tmp_path):
    out, data = tmp_path / "out", features()
    scorer = lc.Scorer(
        nn.Sequential(nn.Linear(12, 40), nn.Linear(40, 3)), path=lc.LearningPath.gauss(3)
    )
    table = lc.score(scorer, data, out)
    manifest = json.loads((out / "_manifest.json").read_text())
    account = scorer.mask_account
    assert manifest["maskable_share"] == 1.0
    assert manifest["path"]["capacities"] == list(scorer.path.capacities)
    assert manifest["path"]["reached"] == list(account.reached)
    assert manifest["path"]["reached_of_body"] == list(account.reached_of_body)
    assert np.allclose(account.reached, scorer.path.capacities, atol=0.5 / 480)
    assert "reached" not in table.metadata["path"]
    for change in (
        lambda: None,
        lambda: strip(out),
        lambda: (out / "part-00000-of-00001.parquet").unlink(),
    ):
        change()
        again = lc.score(scorer, data, out)
        assert np.array_equal(again.column("lc"), table.column("lc"))
    other = lc.Scorer(scorer.spec, path=lc.LearningPath.gauss(2))
    with pytest.raises(ValueError, match="holds the scores of another run"):
        lc.score(other, data, out)


def strip(out):
    """Make a manifest what it was before there was an account."""
    manifest = json.loads((out / "_manifest.json").read_text())
    del manifest["maskable_share"]
    for name in ("reached", "reached_of_body", "first_equal"):
        del manifest["path"][name]
    (out / "_manifest.json").write_text(json.dumps(manifest))


def test_the_command_line_says_what_the_masks_reach(tmp_path, capsys):
    inputs, labels = features()
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", labels)
    save_file({"weight": torch.randn(3, 12)}, tmp_path / "head.safetensors")
    job = (
        f"--model={tmp_path / 'head.safetensors'}", f"--data={tmp_path / 'x.npy'}",
        f"--labels={tmp_path / 'y.npy'}", "--path=explicit:1,.5",
    )  # fmt: skip
    line = (
        "masks: 100.0% of 36 matrix weights can be masked, 36 are; capacity asked 1, 0.5; "
        "reached 1, 0.5; of the body 1, 0.5"
    )
    assert cli.run(["score", *job, f"--out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().err.splitlines().count(line) == 1
    assert cli.run(["plan", *job]) == 0
    assert capsys.readouterr().out.splitlines().count(line) == 1
    assert cli.run(["plan", *job, "--json"]) == 0
    masks = json.loads(capsys.readouterr().out)["masks"]
    assert masks["path"]["reached"] == [1.0, 0.5]
    assert masks["maskable_share"] == 1.0


def test_the_command_line_says_it_of_a_language_model(tmp_path, capsys):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = tiny.random_rows(np.random.default_rng(4), 3)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    job = (f"--model={tmp_path / 'model'}", f"--data={tmp_path / 'rows.jsonl'}")
    assert cli.run(["score", *job, f"--out={tmp_path / 'out'}", "--path=explicit:1,.7"]) == 0
    lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("masks: ")]
    assert len(lines) == 1
    assert "masks: 100.0% of 15,360 matrix weights can be masked" in lines[0]
    assert "capacity asked 1, 0.7; reached 1, 0.6999; of the body 1, 0.6999" in lines[0]


def test_a_plan_warns_once():
    model = tiny.model()
    for name, weight in model.named_parameters():
        if "proj" in name:
            weight.data[:, ::2] = 0
    scorer = CausalLMScorer(model, tiny.tokenizer(), path=lc.LearningPath.explicit([1.0, 0.9, 0.3]))
    rows = scorer.transform.open_source(tiny.random_rows(np.random.default_rng(4), 3))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        assert plan(scorer, rows).masks.missed == 1
    assert [one.category for one in seen] == [MaskingWarning]


def test_the_warning_names_the_line_of_the_caller():
    model = tiny.model()
    for name, weight in model.named_parameters():
        if "proj" in name:
            weight.data[:, ::2] = 0
    scorer = CausalLMScorer(model, tiny.tokenizer(), path=lc.LearningPath.explicit([0.9, 0.3]))
    with pytest.warns(MaskingWarning) as seen:
        lc.score(scorer, tiny.random_rows(np.random.default_rng(4), 3))
    assert [one.filename for one in seen] == [__file__]
