from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers import tiny_language_model as tiny
from lc_engine.data.open import open_source
from lc_engine.data.readers.arrays import ArraySource
from lc_engine.language.model import LanguageModelSpec
from lc_engine.ops.contract import FallbackWarning

PATH = lc.LearningPath.explicit([0.9, 0.5])
NUMBERS = ("lc", "loss", "lc_std", "perplexity", "entropy")


@pytest.fixture(scope="module")
def rows():
    return tiny.random_rows(np.random.default_rng(2), 20)


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [json.dumps(row) for row in rows]
    lines.insert(4, "{")
    path.write_text("\n".join(lines))
    return path


def scorer_of(model=None, **options):
    return lc.Scorer.for_causal_lm(model or tiny.model(), tiny.tokenizer(), path=PATH, **options)


@pytest.mark.parametrize("kind", ["magnitude", "dropout"])
def test_a_stopped_job_continues(file, tmp_path, kind):
    options = {"masking": lc.Masking(kind, scope="layer"), "ifd": True}
    whole = lc.score(scorer_of(**options), file)

    class StoppedError(Exception):
        pass

    def stop(phase, done, rows):
        if done > 10:
            raise StoppedError

    with pytest.raises(StoppedError):
        lc.score(scorer_of(**options), file, tmp_path, batch_size=3, shard_rows=6, progress=stop)
    parts = sorted(path.name for path in tmp_path.glob("part-*"))
    assert parts == ["part-00000-of-00004.parquet"]
    seen = []
    table = lc.score(
        scorer_of(**options),
        file,
        tmp_path,
        batch_size=5,
        shard_rows=6,
        progress=lambda phase, done, rows: seen.append(done),
    )
    assert seen[0] > 6  # the first shard was not scored again
    assert table.column("status").tolist() == whole.column("status").tolist()
    for name in (*NUMBERS, "ifd"):
        np.testing.assert_allclose(table.column(name), whole.column(name), rtol=2e-5, atol=2e-6)
    bad = table.bad_rows(3)
    assert len(bad) == 1
    assert bad[0][:2] == (4, "invalid_json")
    assert bad[0][2].startswith("line 5: not JSON")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ifd": True},
        {"whole_model": False},
        {"masking": lc.Masking(weights="head")},
        {"masking": lc.Masking("dropout"), "ifd": True},
    ],
    ids=["default", "ifd", "no whole model", "head", "dropout"],
)
def test_progress_is_reported_after_every_forward_of_a_window(rows, options):
    scorer = scorer_of(token_budget=1, **options)
    batch = next(scorer.transform.open_source(rows).batches(len(rows)))
    reported = []
    scorer.score_rows(batch, reported.append)
    assert len(reported) % len(rows) == 0  # a row at a time, once per pass
    assert reported == sorted(reported)
    assert set(reported) >= set(range(1, len(rows) + 1))
    seen = []
    lc.score(scorer, rows, progress=lambda *given: seen.append(given))  # one window of rows
    assert seen == [("scores", i, len(rows)) for i in range(1, len(rows) + 1)]


@pytest.mark.parametrize(
    "other",
    [
        {"turns": "last"},
        {"max_tokens": 100},
        {"ifd": True},
        {"whole_model": False},
        {"chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"},
        {"masking": lc.Masking("dropout")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_another_run_is_refused(file, tmp_path, other):
    lc.score(scorer_of(), file, tmp_path)
    with pytest.raises(ValueError, match=r"another run|different"):
        lc.score(scorer_of(**other), file, tmp_path)


def test_select_takes_the_table(file):
    table = lc.score(scorer_of(), file)
    for options in ({"gamma": 0.5}, {"strategy": "easy"}, {"strategy": "random"}, {}):
        keep = lc.select(table, keep=0.5, seed=0, **options)
        assert len(keep) == 10
        assert 4 not in keep
    easy = lc.select(table, keep=3, strategy="easy")
    assert set(easy) == set(np.argsort(-np.nan_to_num(table.column("lc"), nan=-1))[:3])


def test_data_without_a_scorable_row_have_a_table():
    table = lc.score(scorer_of(ifd=True), [{"prompt": "a", "completion": ""}] * 3)
    assert table.status_counts() == {"ok": 0, "empty_response": 3}
    assert np.isnan(table.column("lc")).all()
    assert {"perplexity", "entropy", "ifd", "token_count"} <= set(table.column_names)
    assert len(lc.score(scorer_of(), scorer_of().transform.open_source([], "alpaca"))) == 0


def test_a_folder_is_loaded_when_needed_and_pickled_without_its_model(folder, rows):
    spec = LanguageModelSpec(str(folder), "float32")
    scorer = lc.Scorer.for_causal_lm(spec, path=PATH)
    table = lc.score(scorer, rows)
    again = pickle.loads(pickle.dumps(scorer))
    assert len(pickle.dumps(scorer)) < 2000
    same = lc.score(again, rows)
    held = lc.score(scorer_of(), rows)
    for name in NUMBERS:
        assert (table.column(name) == same.column(name)).all()
        np.testing.assert_allclose(table.column(name), held.column(name), rtol=1e-6)
    assert table.metadata["model"] == {"name": folder.name}
    assert table.metadata["model_digest"] == held.metadata["model_digest"]


def test_a_module_is_pickled_with_the_scorer(rows):
    scorer = scorer_of()
    scorer.describe()
    table = lc.score(pickle.loads(pickle.dumps(scorer)), rows)
    np.testing.assert_array_equal(table.column("lc"), lc.score(scorer, rows).column("lc"))


def train(model):
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            weight.mul_(1.5)


def write_through_data(model):
    for weight in model.model.layers.parameters():
        weight.data.mul_(1.5)


def replace_parameter(model):
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 1.5)


def replace_layer(model):
    old = model.model.layers[0].mlp.up_proj
    new = torch.nn.Linear(old.in_features, old.out_features, False)
    model.model.layers[0].mlp.up_proj = new.to(old.weight.dtype)


def assign_state(model):
    other = {name: value * 1.5 for name, value in model.state_dict().items()}
    model.load_state_dict(other, assign=True)


@pytest.mark.parametrize("loaded", [False, True], ids=["module", "spec"])
@pytest.mark.parametrize(
    "change", [train, write_through_data, replace_parameter, replace_layer, assign_state]
)
def test_a_model_that_was_changed_since_is_prepared_again(rows, folder, change, loaded):
    if loaded:
        scorer = lc.Scorer.for_causal_lm(LanguageModelSpec(str(folder)), path=PATH)
    else:
        scorer = scorer_of(tiny.model(tied=False))
    before = lc.score(scorer, rows)
    change(scorer.model)
    after, anew = lc.score(scorer, rows), lc.score(scorer_of(scorer.model), rows)
    np.testing.assert_array_equal(after.column("lc"), anew.column("lc"))
    assert (after.column("lc") != before.column("lc")).all()
    assert after.metadata["model_digest"] == anew.metadata["model_digest"]
    assert after.metadata["model_digest"] != before.metadata["model_digest"]


@pytest.mark.parametrize("options", [{}, {"masking": lc.Masking(weights="all"), "ifd": True}])
def test_a_forward_that_writes_to_its_tokens_sees_fresh_ones(rows, options):
    def scored(fresh):
        def write(_, args, kwargs):
            ids = kwargs["input_ids"].clone() if fresh else kwargs["input_ids"]
            return args, kwargs | {"input_ids": ids.add_(1).remainder_(50)}

        model = tiny.model()
        model.get_decoder().register_forward_pre_hook(write, with_kwargs=True)
        return lc.score(scorer_of(model, **options), rows)

    found, right = scored(fresh=False), scored(fresh=True)
    for name in NUMBERS:
        np.testing.assert_array_equal(found.column(name), right.column(name))


def test_bfloat16_ranks_rows_alike(folder, rows):
    tables = {}
    for dtype in ("float32", "bfloat16"):
        spec = LanguageModelSpec(str(folder), dtype)
        tables[dtype] = lc.score(lc.Scorer.for_causal_lm(spec, path=PATH), rows)
        assert tables[dtype].metadata["dtype"] == dtype
    a, b = (table.column("loss") for table in tables.values())
    # bfloat16 has 8 bits of precision: 0.4 % of logits of about 5.
    np.testing.assert_allclose(a, b, atol=0.1)


def test_arguments_that_do_not_fit(rows):
    with pytest.raises(ValueError, match="model must be a module, a LanguageModelSpec or a text"):
        lc.Scorer.for_causal_lm(3)
    for arguments in ((tiny.model(),), ("folder", tiny.tokenizer())):
        with pytest.raises(ValueError, match="tokenizer goes with a model that is passed as a mod"):
            lc.Scorer.for_causal_lm(*arguments)
    with pytest.raises(ValueError, match='pooling must be "mean" or "weighted_mean", got \'max'):
        scorer_of(pooling="max")
    with pytest.raises(ValueError, match="token_budget must be at least 1"):
        scorer_of(token_budget=0)
    with pytest.raises(ValueError, match="max_tokens is 500, but the model has 256 positions"):
        lc.score(scorer_of(max_tokens=500), rows)
    with pytest.raises(ValueError, match="max_tokens must be at least 2"):
        lc.score(scorer_of(max_tokens=1), rows)
    with pytest.raises(ValueError, match="Linear has no vocabulary head"):
        lc.score(scorer_of(torch.nn.Linear(2, 2)), rows)
    source = ArraySource(torch.ones(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="scores instruction sets, and this source is a ArrayS"):
        lc.score(scorer_of(), source)
    with pytest.raises(ValueError, match="labels and columns are for images"):
        open_source(rows, labels="y.npy", transform=scorer_of().transform)


def test_the_default_paths_are_those_of_the_paper():
    assert lc.Scorer.for_causal_lm("folder").path == lc.LearningPath.gauss(8, 0.7, 1.0)
    dropout = lc.Scorer.for_causal_lm("folder", masking=lc.Masking("dropout"))
    np.testing.assert_allclose(dropout.path.capacities, np.arange(9, 0, -1) / 10)


def test_scoring_images_does_not_import_transformers():
    modules = "sys, lc_engine.scorer.scorer, lc_engine.data.open"
    code = f"import {modules}; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ifd": True, "whole_model": False},
        {"token_budget": 40},
        {"pooling": "weighted_mean"},
        {"pooling": "weighted_mean", "token_budget": 40},
    ],
)
def test_features_are_the_pooled_states_that_predict_the_response(file, tmp_path, options):
    made = scorer_of(**options)
    with_features = lc.score(made, file, tmp_path / "with", shard_rows=6)
    without = lc.score(scorer_of(**options), file, tmp_path / "out", shard_rows=6, features=False)
    assert with_features.table.equals(without.table)
    features = np.asarray(with_features.features(), np.float32)
    assert np.isnan(features[4]).all()  # the line that is not JSON
    batch = next(made.transform.open_source(file).batches(30))
    ok = [i for i, status in enumerate(batch.status) if status == "ok"]
    body = tiny.model().double().model
    for i, row in zip(ok, batch.inputs, strict=True):
        with torch.inference_mode():
            ids = torch.from_numpy(row.ids)[None]
            states = body(input_ids=ids, use_cache=False).last_hidden_state[0].numpy()
        pooled, total = np.zeros(states.shape[1]), 0
        for place, position in enumerate(np.flatnonzero(row.response) - 1, 1):
            weight = place if options.get("pooling") == "weighted_mean" else 1
            pooled += weight * states[position]
            total += weight
        # Stored in float16, 11 bits.
        np.testing.assert_allclose(features[i], pooled / total, rtol=1e-3, atol=1e-3)


def test_a_run_is_not_continued_with_features_pooled_otherwise(rows, tmp_path):
    lc.score(scorer_of(), rows, tmp_path)
    with pytest.raises(ValueError, match="pooling"):
        lc.score(scorer_of(pooling="weighted_mean"), rows, tmp_path)


def test_features_hold_the_states_before_a_head_that_does_more_than_a_linear_map(rows, tmp_path):
    scaled = tiny.model()
    forward = scaled.lm_head.forward
    scaled.lm_head.forward = lambda states: 0.5 * forward(states)
    with pytest.warns(FallbackWarning, match="more with its vocabulary head"):
        table = lc.score(scorer_of(scaled), rows, tmp_path / "scaled")
    plain = lc.score(scorer_of(), rows, tmp_path / "plain")
    np.testing.assert_allclose(
        np.asarray(table.features(), np.float32),
        np.asarray(plain.features(), np.float32),
        rtol=2e-3,
        atol=2e-3,
    )


def test_a_run_without_the_whole_model_keeps_no_features(rows, tmp_path):
    assert not lc.score(scorer_of(whole_model=False), rows, tmp_path).has_features


def test_tokens_beyond_the_embedding_cost_their_rows_only(rows):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<tool>"])
    # The tiny model has 5 rows of its embedding to spare.
    tokenizer.add_tokens([f"<{i}>" for i in range(8)])
    scorer = lc.Scorer.for_causal_lm(tiny.model(), tokenizer)
    beyond = {"instruction": "a", "output": "b <7>"}
    within = {"instruction": "a", "output": "b <tool>"}
    table = lc.score(scorer, [*rows[:3], beyond, within])
    assert list(table.column("status")) == ["ok", "ok", "ok", "unreadable", "ok"]
    assert "beyond the 270 tokens that the model has an embedding of" in table.column("detail")[3]
    alone = lc.score(scorer, rows[:3])
    np.testing.assert_allclose(table.column("lc")[:3], alone.column("lc"), rtol=1e-5)


def test_a_start_token_beyond_the_embedding_is_refused_before_a_row_is_read():
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(20)])
    tokenizer.bos_token = "<19>"
    scorer = lc.Scorer.for_causal_lm(tiny.model(), tokenizer, ifd=True)
    with pytest.raises(ValueError, match=r"ifd: the start token .* is beyond the 270 tokens"):
        scorer.describe()
