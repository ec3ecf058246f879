"""A subset goes into the trainers as it is: transformers' Trainer, and TRL's SFTTrainer."""

from __future__ import annotations

import copy
import json

import datasets
import numpy as np
import pytest

import lc_engine as lc
from lc_engine.integrations.files import write_subset
from lc_engine.integrations.hf import subset, with_scores
from lc_engine.language.scorer import CausalLMScorer

pytestmark = pytest.mark.filterwarnings("default")  # of other people's trainers


@pytest.fixture(scope="module")
def scorer(llama):
    return CausalLMScorer(*llama, path=lc.LearningPath.gauss(2, 0.7, 1.0))


@pytest.fixture(scope="module")
def direct(scorer, talk):
    return lc.score(scorer, talk)


@pytest.fixture
def file(tmp_path, talk):
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talk))
    return tmp_path / "talk.jsonl"


def load(path, cache):
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))


@pytest.mark.slow
def test_transformers_trainer_takes_the_subset(tmp_path, file, scorer, direct, llama):
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    dataset = load(file, tmp_path / "cache")
    scores = lc.score(scorer, dataset)
    scored = with_scores(dataset, scores)
    np.testing.assert_allclose(scored["lc"][:], direct.column("lc"), rtol=1e-5)
    keep = lc.select(scores, 0.2, "hard", by=None)
    np.testing.assert_array_equal(keep, lc.select(direct, 0.2, "hard", by=None))

    model, tokenizer = copy.deepcopy(llama[0]), copy.deepcopy(llama[1])
    tokenizer.pad_token = "</s>"
    chosen = subset(dataset, keep).map(
        lambda row: tokenizer(row["prompt"] + row["completion"], truncation=True, max_length=64),
        remove_columns=dataset.column_names,
    )
    seen = []

    class Watching(DataCollatorForLanguageModeling):
        def __call__(self, rows, *args):
            seen.extend(tuple(row["input_ids"]) for row in copy.deepcopy(rows))
            return super().__call__(rows, *args)

    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path / "run"),
            num_train_epochs=1,
            per_device_train_batch_size=8,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=chosen,
        data_collator=Watching(tokenizer, mlm=False),
    )
    assert trainer.train().global_step == 3
    rows = [dataset[int(i)] for i in keep]
    texts = [row["prompt"] + row["completion"] for row in rows]
    want = [tuple(tokenizer(text)["input_ids"][:64]) for text in texts]
    assert sorted(seen) == sorted(want)


def test_trl_s_sft_trainer_takes_the_file(tmp_path, file, scorer, direct, llama):
    trl = pytest.importorskip("trl", reason="TRL is not installed: make test-integrations")
    scores = lc.score(scorer, file)
    np.testing.assert_allclose(scores.column("lc"), direct.column("lc"), rtol=1e-5)
    keep = lc.select(scores, 0.2, gamma=0.5)
    np.testing.assert_array_equal(keep, lc.select(direct, 0.2, gamma=0.5))
    assert write_subset(file, keep, tmp_path / "kept.jsonl") == 24

    tokenizer = copy.deepcopy(llama[1])
    tokenizer.pad_token = "</s>"
    trainer = trl.SFTTrainer(
        copy.deepcopy(llama[0]),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "run"),
            num_train_epochs=1,
            per_device_train_batch_size=8,
            max_length=128,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=load(tmp_path / "kept.jsonl", tmp_path / "cache"),
        processing_class=tokenizer,
    )
    assert len(trainer.train_dataset) == 24
    result = trainer.train()
    assert result.global_step == 3
    assert np.isfinite(result.training_loss)


def asked(text):
    return [{"role": "user", "content": text}]


def said(text):
    return [{"role": "assistant", "content": text}]


PAIRS = {
    "texts": lambda q, good, bad: {"prompt": f"{q}\n", "chosen": good, "rejected": bad},
    "turns": lambda q, good, bad: {"prompt": asked(q), "chosen": said(good), "rejected": said(bad)},
    "whole texts": lambda q, good, bad: {"chosen": f"{q}\n{good}", "rejected": f"{q}\n{bad}"},
    "whole turns": lambda q, good, bad: {
        "chosen": asked(q) + said(good),
        "rejected": asked(q) + said(bad),
    },
}


@pytest.mark.parametrize("kind", PAIRS)
def test_trl_s_dpo_trainer_takes_the_pairs(tmp_path, talk, scorer, llama, kind):
    trl = pytest.importorskip("trl", reason="TRL is not installed: make test-integrations")
    rows = [
        PAIRS[kind](row["prompt"], row["completion"], other["completion"])
        for row, other in zip(talk[:24], talk[24:48], strict=True)
    ]
    data, kept = tmp_path / "pairs.jsonl", tmp_path / "kept.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = lc.score(scorer, data)
    keep = lc.select(scores, 8, "easy", score="margin", by=None)
    assert write_subset(data, keep, kept) == 8
    assert scores.column("margin")[keep].min() >= np.sort(scores.column("margin"))[-8]

    tokenizer = copy.deepcopy(llama[1])
    tokenizer.pad_token = "</s>"
    trainer = trl.DPOTrainer(
        copy.deepcopy(llama[0]),
        copy.deepcopy(llama[0]),
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "run"),
            num_train_epochs=1,
            per_device_train_batch_size=4,
            max_length=256,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=load(kept, tmp_path / "cache"),
        processing_class=tokenizer,
    )
    # The tokens that were scored are those that TRL trains on, without the end of the turn.
    pairs = next(scorer.transform.open_source(kept).batches(8)).inputs
    for row, chosen, rejected in zip(
        trainer.train_dataset, pairs.chosen, pairs.rejected, strict=True
    ):
        for name, tokens in (("chosen_ids", chosen), ("rejected_ids", rejected)):
            ids = [*row["prompt_ids"], *row[name]]
            assert ids[: len(tokens.ids)] == tokens.ids.tolist()
    result = trainer.train()
    assert result.global_step == 2
    assert np.isfinite(result.training_loss)
