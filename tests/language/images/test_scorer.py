"""The scores of conversations with images, against a plain loop in float64; tiny, seeded models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers import tiny_image_text as tiny
from lc_engine.data.open import open_source
from lc_engine.language.images import encoder as encoding
from lc_engine.language.model import LanguageModelSpec
from lc_engine.ops import philox

CAPACITIES = (1.0, 0.7, 0.4)
PATH = lc.LearningPath.explicit(CAPACITIES)


def conversation(asked, *, answers=("a hello in it",), **more):
    turns = []
    for said, answer in zip([asked, *more.pop("further", ())], answers, strict=True):
        turns += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for i in range(3):
        tiny.picture(i, 50 + 9 * i).save(folder / f"{i}.png")
    rows = [conversation(f"<image>\nhello {'x' * i}", images=[f"{i % 3}.png"]) for i in range(5)]
    rows += [
        conversation(f"hello in the morning, tell me: {i}") for i in range(5)
    ]  # with a shared prefix
    two = {"further": ["<image> and it"], "answers": ["it is", "the  he"]}
    rows.append(conversation("<image>both<image>", **two, images=["2.png", "0.png", "1.png"]))
    rows.append(conversation("<image>gone", images=["gone.png"]))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def pair(request):
    return tiny.FAMILIES[request.param]()


def plain(model, inputs, capacities=CAPACITIES):
    rows = [
        ({"input_ids": torch.from_numpy(row.ids)[None], **(row.inputs or {})},
         np.flatnonzero(row.response))
        for row in inputs
    ]  # fmt: skip
    return tiny.plain_loop(model, rows, capacities).numpy()


def test_scores_are_those_of_a_plain_loop(pair, data):
    model, processor = pair
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scorer = lc.Scorer.for_causal_lm(model, processor, path=PATH)
    source = open_source(data, transform=scorer.transform)
    table = lc.score(scorer, source, return_path=True, progress=False)
    assert table.column("status").tolist() == ["ok"] * 11 + ["bad_image"]
    nll = plain(model, next(source.batches(12)).inputs)
    assert np.median(np.ptp(nll, axis=0)) > 0.05  # the sub-models do differ
    found = np.array(table.column("path_log_probs")[:11].tolist()).T
    np.testing.assert_allclose(found, -nll, atol=1e-5)
    np.testing.assert_allclose(table.column("lc")[:11], np.exp(-nll).mean(0), atol=1e-5)
    np.testing.assert_allclose(table.column("loss")[:11], nll.mean(0), atol=1e-5)
    np.testing.assert_allclose(table.column("perplexity")[:11], np.exp(nll[0]), rtol=1e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert scorer.usage.computed < scorer.usage.asked + scorer.usage.padding  # a prefix was shared


def test_sliding_windows_and_images_seen_from_both_sides_are_kept(data):
    model, processor = tiny.gemma()
    scorer = lc.Scorer.for_causal_lm(model, processor, path=PATH)
    source = open_source(data, transform=scorer.transform)
    (batch,) = source.batches(12)
    assert max(len(row.ids) for row in batch.inputs) > 2 * 16, "windows matter"
    table = lc.score(scorer, source, progress=False)
    nll = plain(model, batch.inputs)
    np.testing.assert_allclose(table.column("loss")[:11], nll.mean(0), atol=1e-5)
    np.testing.assert_allclose(table.column("lc")[:11], np.exp(-nll).mean(0), atol=1e-5)


def test_images_and_vision_tower_run_once_for_all_sub_models(pair, data, monkeypatch):
    model, processor = pair
    scorer = lc.Scorer.for_causal_lm(model, processor, path=PATH)
    source = open_source(data, transform=scorer.transform)
    read, real = [], encoding.read_image

    def counted(image):
        read.append(image.value)
        return real(image)

    monkeypatch.setattr(encoding, "read_image", counted)
    tower = next(
        part
        for name, part in model.named_modules()
        if name.endswith(("vision_tower", "visual", "vision_model"))
    )
    runs = []
    handle = tower.register_forward_hook(lambda *_: runs.append(1))
    try:
        lc.score(scorer, source, progress=False)
    finally:
        handle.remove()
    assert len(read) == 5 + 3 + 1
    assert len(runs) == 6  # rows with images, not times sub-models


def test_a_folder_is_loaded_with_its_processor(pair, data, tmp_path):
    model, processor = pair
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    spec = LanguageModelSpec(str(tmp_path), dtype="float32")
    loaded, own = spec.load()
    assert type(loaded) is type(model)
    assert type(own) is type(processor)
    tables = [
        lc.score(scorer, data, progress=False)
        for scorer in (
            lc.Scorer.for_causal_lm(spec, path=PATH),
            lc.Scorer.for_causal_lm(model, processor, path=PATH),
        )
    ]
    for name in ("lc", "loss", "perplexity", "entropy"):
        np.testing.assert_array_equal(*(table.column(name) for table in tables))
    head = tables[0].metadata["head"]
    assert head["processor"] == type(processor).__name__
    assert head == tables[1].metadata["head"]


def test_ifd_compares_with_the_answer_without_image_and_prompt(data):
    model, processor = tiny.qwen()
    scorer = lc.Scorer.for_causal_lm(model, processor, path=PATH, ifd=True)
    table = lc.score(scorer, data, progress=False)
    inputs = next(open_source(data, transform=scorer.transform).batches(12)).inputs
    start = processor.tokenizer.bos_token_id
    alone = []
    for row in inputs:
        ids = np.insert(row.ids[row.response], 0, start)
        alone.append(({"input_ids": torch.from_numpy(ids)[None]}, range(1, len(ids))))
    without = tiny.plain_loop(model, alone, [1.0]).numpy()[0]
    wanted = plain(model, inputs, [1.0])[0] / without
    np.testing.assert_allclose(table.column("ifd")[:11], wanted, atol=1e-5)


def test_dropout_acts_on_the_language_model_alone(data):
    model, processor = tiny.qwen()
    masking = lc.Masking("dropout", seed=7)
    scorer = lc.Scorer.for_causal_lm(
        model, processor, masking=masking, path=lc.LearningPath.explicit([0.8])
    )
    source = open_source(data, transform=scorer.transform)
    table = lc.score(scorer, source, progress=False)
    inputs = [row for row in next(source.batches(12)).inputs if row.inputs is not None]
    own, _ = tiny.qwen()
    own = own.double()
    layers = own.get_decoder().layers
    for stream, branch in enumerate(b for layer in layers for b in (layer.self_attn, layer.mlp)):

        def drop(_, __, output, stream=stream):
            value = output[0] if isinstance(output, tuple) else output
            drawn = philox.uniform(tuple(value.shape[1:]), 7, stream).double()
            value = torch.where(drawn >= 1 - 0.8, value / 0.8, 0)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        branch.register_forward_hook(drop)
    rows = [0, 1, 2, 3, 4, 10]
    for row, own_inputs in zip(rows, inputs, strict=True):
        given = {"input_ids": torch.from_numpy(own_inputs.ids)[None], **own_inputs.inputs}
        given = {n: v.double() if v.is_floating_point() else v for n, v in given.items()}
        with torch.no_grad():
            log_p = own(**given).logits[0].log_softmax(-1)
        counted = np.flatnonzero(own_inputs.response)
        nll = -log_p[counted - 1, own_inputs.ids[counted]].mean()
        assert table.column("loss")[row] == pytest.approx(float(nll), abs=1e-5)


def test_weights_are_chosen_among_those_of_the_language_model():
    model, processor = tiny.llava()
    asked = []

    def choose(name, module):
        asked.append(name)
        return name.endswith("q_proj")

    scorer = lc.Scorer.for_causal_lm(model, processor, masking=lc.Masking(weights=choose))
    assert scorer.describe()["masking"]["scope"]
    assert asked
    assert all(name.startswith(("decoder.", "head")) for name in asked)


def test_an_encoder_decoder_is_refused():
    import transformers

    model, processor = tiny.llava()
    model.config.is_encoder_decoder = True
    assert isinstance(model, transformers.LlavaForConditionalGeneration)
    scorer = lc.Scorer.for_causal_lm(model, processor)
    with pytest.raises(ValueError, match="reads its prompt with an encoder"):
        scorer.describe()


def test_a_model_that_does_more_than_its_language_model_is_refused(monkeypatch):
    model, processor = tiny.llava()
    real = type(model).forward

    def shifted(self, **inputs):
        found = real(self, **inputs)
        if inputs.get("pixel_values") is not None:
            found.logits = found.logits + 1
        return found

    monkeypatch.setattr(type(model), "forward", shifted)
    scorer = lc.Scorer.for_causal_lm(model, processor)
    with pytest.raises(ValueError, match="more than its language model"):
        scorer.describe()


def test_a_run_does_not_continue_with_another_image(tmp_path):
    model, processor = tiny.llava()
    scorer = lc.Scorer.for_causal_lm(model, processor, path=PATH)
    tiny.picture(0).save(tmp_path / "0.png")
    rows = [conversation("<image>\nhi", images=["0.png"]), conversation("hello")]
    rows.append(conversation("<image>\nhi", images=["QUJD" * 3000]))  # no name of a file
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(data, transform=scorer.transform)
    assert source.describe()["images"] == 1
    lc.score(scorer, data, out=tmp_path / "out", progress=False)
    lc.score(scorer, data, out=tmp_path / "out", progress=False)
    tiny.picture(5).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="images_digest"):
        lc.score(scorer, data, out=tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=r"0\.png has changed since"):
        source.check_unchanged(range(1))
    source.check_unchanged(range(1, 2))


def test_images_within_parquet_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    model, processor = tiny.smol()
    tiny.picture(0).save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    part = {"type": "image", "text": None}
    asked = [{"role": "user", "content": [part, {"type": "text", "text": "hello"}]}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a he in"}]}
    row = {"messages": [*asked, answer]}
    table = pa.Table.from_pylist([row | {"images": [{"bytes": content, "path": None}]}])
    pq.write_table(table, tmp_path / "rows.parquet")
    listed = [row | {"images": [str(tmp_path / "0.png")]}]
    scorer = lc.Scorer.for_causal_lm(model, processor, path=PATH)
    found = [
        lc.score(scorer, one, progress=False).column("lc")
        for one in (tmp_path / "rows.parquet", listed)
    ]
    assert np.isfinite(found[0]).all()
    np.testing.assert_array_equal(*found)
