"""Encoders of texts against a plain loop in float64 over one text at a time, without padding."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch

import lc_engine as lc
from helpers import tiny_encoder as tiny
from lc_engine.data.open import open_source
from lc_engine.heads.loss import token_nll
from lc_engine.heads.prototype import Prototypes
from lc_engine.models.load import ModelSpec

PATH = lc.LearningPath.explicit([1.0, 0.7, 0.4])
ROWS = 14
CLASSIFIERS = {
    "Bert": "classifier",
    "Roberta": "classifier.out_proj",
    "DebertaV2": "classifier",
    "ModernBert": "classifier",
    "DistilBert": "classifier",
}


def rows(labels=3, pairs=False):
    one, two = tiny.texts(ROWS), tiny.texts(ROWS, seed=1)
    found = [{"text": text, "label": i % labels} for i, text in enumerate(one)]
    if pairs:
        found = [
            {"sentence1": row["text"], "sentence2": other, "label": row["label"]}
            for row, other in zip(found, two, strict=True)
        ]
    return found


def tokens(family, data):
    """The inputs of each row alone."""
    tokenizer = tiny.tokenizer(family)
    given = [
        [row[name] for name in ("text", "sentence1", "sentence2") if name in row] for row in data
    ]
    return [dict(tokenizer(*texts)) for texts in given]


def check(table, want, rtol=1e-5):
    """Compare log p with that of the loop (K, N)."""
    assert table.status_counts() == {"ok": want.shape[1]}
    np.testing.assert_allclose(table.column("path_log_probs").T, want, rtol=rtol, atol=1e-5)
    omega = torch.tensor(PATH.weights, dtype=torch.float64)
    np.testing.assert_allclose(table.column("lc"), omega @ want.exp(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_classifier_scores_as_a_plain_loop(family, pairs, tmp_path):
    folder = tiny.save(tmp_path, family, "ForSequenceClassification", num_labels=3)
    data = rows(pairs=pairs)
    scorer = lc.Scorer(folder, head="linear", path=PATH)
    table = lc.score(scorer, data, return_path=True)
    assert scorer.describe()["head"]["classifier"] == CLASSIFIERS[family]
    model = tiny.make(family, "ForSequenceClassification", num_labels=3)
    found = tiny.plain_loop(
        model, tokens(family, data), PATH, CLASSIFIERS[family], lambda out: out.logits[0]
    )
    labels = torch.tensor([row["label"] for row in data])
    log_p = torch.stack([torch.stack(every).log_softmax(1) for every in found])
    check(table, log_p[:, torch.arange(ROWS), labels])


POOLINGS = {
    "cls": lambda out: out.last_hidden_state[0, 0],
    "mean": lambda out: out.last_hidden_state[0].mean(0),
    "pooler": lambda out: out.pooler_output[0],
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_class_means_are_of_pooled_states(pooling, tmp_path):
    folder = tiny.save(tmp_path, "Bert", "Model")
    data = rows()
    spec = ModelSpec(folder, pooling=pooling)
    table = lc.score(lc.Scorer(spec, path=PATH), data, return_path=True)
    model = tiny.make("Bert", "Model")
    every = tiny.plain_loop(model, tokens("Bert", data), PATH, None, POOLINGS[pooling])
    features = torch.stack([torch.stack(one) for one in every])
    labels = torch.tensor([row["label"] for row in data])
    means = torch.stack([features[0][labels == c].mean(0) for c in range(3)])
    distances = (features[:, :, None] - means).square().sum(3).sqrt()
    check(table, (1 / distances).log_softmax(2)[:, torch.arange(ROWS), labels], rtol=1e-4)


def test_the_nearest_rows_are_found(tmp_path):
    folder = tiny.save(tmp_path, "Bert", "Model")
    data = rows()
    scorer = lc.Scorer(ModelSpec(folder, pooling="mean"), head="knn", neighbours=3, path=PATH)
    table = lc.score(scorer, data, return_path=True)
    every = tiny.plain_loop(
        tiny.make("Bert", "Model"), tokens("Bert", data), PATH, None, POOLINGS["mean"]
    )
    labels = torch.tensor([row["label"] for row in data])
    want = []
    for features in map(torch.stack, every):
        distances = (features[:, None] - features[None]).square().sum(2).sqrt()
        distances.fill_diagonal_(torch.inf)
        near = distances.topk(3, largest=False)
        share = (1 / near.values * (labels[near.indices] == labels[:, None])).sum(1)
        want.append((share / (1 / near.values).sum(1)).clamp_min(1e-6).log())
    check(table, torch.stack(want), rtol=1e-4)


def test_a_token_classifier_is_scored_by_the_mean_over_labelled_tokens(tmp_path):
    folder = tiny.save(tmp_path, "Bert", "ForTokenClassification", num_labels=4)
    words = [[*text.split(), "cats"] for text in tiny.texts(ROWS)]
    tags = [[(i + j) % 5 - 1 for j in range(len(one))] for i, one in enumerate(words)]
    tags = [[-100 if tag < 0 else tag for tag in one] for one in tags]
    tags[0][0] = 1
    data = [{"tokens": one, "ner_tags": two} for one, two in zip(words, tags, strict=True)]
    scorer = lc.Scorer(folder, head=lc.Loss(token_nll), path=PATH)
    table = lc.score(scorer, data, return_path=True)
    encoded = [tiny.tokenizer()(one, is_split_into_words=True) for one in words]
    model = tiny.make("Bert", "ForTokenClassification", num_labels=4)
    found = tiny.plain_loop(
        model,
        list(map(dict, encoded)),
        PATH,
        "classifier",
        lambda out: out.logits[0].log_softmax(1),
    )
    want = torch.zeros(len(PATH), ROWS, dtype=torch.float64)
    for i, (row, own) in enumerate(zip(encoded, tags, strict=True)):
        first = {
            word: t for t, word in reversed(list(enumerate(row.word_ids()))) if word is not None
        }
        chosen = [(first[word], tag) for word, tag in enumerate(own) if tag >= 0]
        assert len(first) == len(own) < len(row.word_ids()) - 2  # "cats" is two tokens
        for k in range(len(PATH)):
            want[k, i] = torch.stack([found[k][i][t, tag] for t, tag in chosen]).mean()
    check(table, want)


def test_a_module_of_ones_own_takes_a_mapping_of_padded_tokens():
    model = tiny.make("Bert", "ForSequenceClassification", num_labels=3)
    data = rows()
    batch = tiny.tokenizer()([row["text"] for row in data], padding=True, return_tensors="pt")
    labels = torch.tensor([row["label"] for row in data])
    scorer = lc.Scorer(model, head="linear", path=PATH)
    found = scorer.score_batch((batch, labels))
    alone = [
        scorer.score_batch(({n: v[i : i + 1] for n, v in batch.items()}, labels[i : i + 1])).lc
        for i in range(ROWS)
    ]
    np.testing.assert_allclose(found.lc, torch.cat(alone), rtol=1e-5)
    each = [({n: v[i] for n, v in batch.items()}, int(labels[i])) for i in range(ROWS)]
    table = lc.score(scorer, each)
    np.testing.assert_allclose(table.column("lc"), found.lc, rtol=1e-5)


def test_the_mean_over_the_states_of_a_bare_module_leaves_padding_out():
    model = tiny.make("DistilBert", "Model")
    data = rows()
    batch = tiny.tokenizer("DistilBert")(
        [row["text"] for row in data], padding=True, return_tensors="pt"
    )
    scorer = lc.Scorer(model, path=PATH)
    each = [({n: v[i] for n, v in batch.items()}, i % 3) for i in range(ROWS)]
    means = scorer.fit(open_source(each)).prototypes.means
    alone = tiny.plain_loop(
        model, tokens("DistilBert", data), PATH, None, lambda out: out.last_hidden_state[0].mean(0)
    )[0]
    want = torch.stack([torch.stack(alone[c::3]).mean(0) for c in range(3)])
    np.testing.assert_allclose(means, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "json", "saved"])
def test_every_file_gives_the_same_scores(kind, tmp_path):
    folder = tiny.save(tmp_path / "model", "Bert", "ForSequenceClassification", num_labels=3)
    data = rows()
    scorer = lc.Scorer(folder, head="linear", path=PATH)
    want = lc.score(scorer, data).column("lc")
    dataset = datasets.Dataset.from_list(data)
    path = tmp_path / f"rows.{kind}"
    write = {
        "csv": dataset.to_csv,
        "tsv": lambda path: dataset.to_csv(path, sep="\t"),
        "parquet": dataset.to_parquet,
        "jsonl": dataset.to_json,
        "json": lambda path: tmp_path.joinpath("rows.json").write_text(json.dumps(data)),
        "saved": dataset.save_to_disk,
    }[kind]
    write(str(path))
    np.testing.assert_array_equal(lc.score(scorer, path).column("lc"), want)
    np.testing.assert_array_equal(lc.score(scorer, dataset).column("lc"), want)


def test_names_of_classes_are_the_models_own(tmp_path):
    names = {0: "bad", 1: "good"}
    folder = tiny.save(
        tmp_path,
        "Bert",
        "ForSequenceClassification",
        id2label=names,
        label2id={"bad": 0, "good": 1},
    )
    data = [{"text": text, "label": names[i % 2]} for i, text in enumerate(tiny.texts(8))]
    data[3]["label"] = "ugly"
    table = lc.score(lc.Scorer(folder, head="linear", path=PATH), data)
    assert table.column("label").tolist() == [0, 1, 0, -1, 0, 1, 0, 1]
    assert table.column("detail")[3] == "row 3: the label is 'ugly', the others are bad, good"
    other = [{"text": "a cat", "label": "pos"}, {"text": "a dog", "label": "neg"}]
    with pytest.raises(ValueError, match="has the names neg, pos, and the model other ones"):
        lc.score(lc.Scorer(folder, head="linear"), other)
    # Class means take any names, sorted.
    bare = tiny.save(tmp_path / "bare", "Bert", "Model")
    assert lc.score(lc.Scorer(bare), other * 3).column("label").tolist() == [1, 0] * 3


def test_rows_that_cannot_be_read_have_a_status(tmp_path):
    folder = tiny.save(tmp_path, "Bert", "ForSequenceClassification", num_labels=3)
    data = [*rows()[:4], {"text": None, "label": 0}, {"text": "a cat", "label": None}, "text"]
    data += [
        {"text": "a cat", "label": 7},
        {"label": 1},
        {"text": " ".join(["cat"] * 60), "label": 1},
    ]
    table = lc.score(lc.Scorer(folder, head="linear", path=PATH), data, batch_size=3)
    status = ["ok"] * 4 + ["unreadable", "bad_label", "unreadable", "bad_label", "unreadable", "ok"]
    assert table.column("status").tolist() == status
    assert table.column("detail")[9] == "truncated: the first 40 tokens are read"
    assert table.column("detail")[4] == "row 4: 'text' must be a text or a list of words, got None"


def test_empty_texts_have_a_status(tmp_path):
    folder = tiny.save(tmp_path / "model", "Bert", "ForSequenceClassification", num_labels=3)
    # A CSV as spreadsheets write it: a mark at its front, and a text over two lines.
    alone = tmp_path / "alone.csv"
    alone.write_text('\ufefftext,label\n"the\ncat ""sat""",0\n,2\n" ",1\n', encoding="utf-8")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2,label\nthe,cat,0\nthe dog,,1\n,a,2\n")
    for path, empty in ((alone, ("text", "text")), (pairs, ("sentence2", "sentence1"))):
        table = lc.score(lc.Scorer(folder, head="linear", path=PATH), path)
        assert table.column("status").tolist() == ["ok", "unreadable", "unreadable"]
        for name, detail in zip(empty, table.column("detail")[1:], strict=True):
            assert detail.endswith(f"{name!r} is empty: leave the row out")


def test_labels_of_words_that_are_no_classes_have_a_status(tmp_path):
    folder = tiny.save(tmp_path, "Bert", "ForTokenClassification", num_labels=3)
    tags = ([0, -100], [0.7, 1.2], [-1, 0], [True, False], [-100, -100], [0], ["x", "y"], [0, 3])
    data = [{"tokens": ["the", "cat"], "ner_tags": each} for each in tags]
    data.append({"tokens": ["", " "], "ner_tags": [0, 1]})
    table = lc.score(lc.Scorer(folder, head=lc.Loss(token_nll), path=PATH), data)
    assert table.column("status").tolist() == ["ok"] + ["bad_label"] * 6 + ["failed", "unreadable"]
    says = ("", "must be integers, got torch.float32", "-1: classes are numbers from 0 on, -100")
    says += ("got torch.bool", "no word that is read", "the shape (1,)", "numbers are needed")
    says += ("Target 3 is out of bounds", "'tokens' is empty")
    for found, part in zip(table.column("detail"), says, strict=True):
        assert part in found


def test_what_does_not_fit_is_refused(tmp_path):
    folder = tiny.save(tmp_path / "a", "Bert", "ForSequenceClassification", num_labels=3)
    tokens = tiny.save(tmp_path / "b", "Bert", "ForTokenClassification", num_labels=3)
    masked = tiny.save(tmp_path / "c", "Bert", "ForMaskedLM")
    data = rows()
    with pytest.raises(ValueError, match="returns logits per token"):
        lc.score(lc.Scorer(tokens, head="linear"), data)
    with pytest.raises(ValueError, match="pooling is for a bare encoder"):
        lc.score(lc.Scorer(ModelSpec(folder, pooling="cls")), data)
    with pytest.raises(ValueError, match="has no trained pooler: take cls or mean"):
        lc.score(lc.Scorer(ModelSpec(masked, pooling="pooler")), data)
    assert lc.score(lc.Scorer(masked), data).status_counts() == {"ok": ROWS}
    for asked, says in (
        ({"feature_column": "body"}, "feature_column 'body': name one or two"),
        ({"label_column": "topic"}, "label_column 'topic': name one of the columns text, label"),
    ):
        with pytest.raises(ValueError, match=says):
            lc.score(lc.Scorer(folder, head="linear"), data, **asked)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks 4 tensors of its model, which would be random"):
        lc.score(lc.Scorer(masked, head="linear"), data)


def test_no_labels_need_no_column(tmp_path):
    folder = tiny.save(tmp_path, "Bert", "ForSequenceClassification", num_labels=3)
    data = [{"text": row["text"]} for row in rows()]
    table = lc.score(lc.Scorer(folder, head="linear", labels=None, path=PATH), data)
    assert table.status_counts() == {"ok": ROWS}
    assert np.isfinite(table.column("agreement")).all()


def test_prototypes_of_another_model_are_refused(tmp_path):
    folder = tiny.save(tmp_path, "Bert", "Model")
    wrong = Prototypes(torch.arange(3), torch.zeros(3, 7), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="returns features of width 16, but the prototypes have 7"):
        lc.score(lc.Scorer(folder).use_prototypes(wrong), rows())
