"""What selecting instruction rows does to fine-tuning: SmolLM2-135M, LoRA, paired seeds.

    python -m benchmarks.language.finetune --out RESULTS.jsonl [--sets chatterbot,bfcl] [--seeds 3]

Each seed splits a real set into rows to choose from and held-out ones, and swaps a quarter of the
answers among themselves ("swapped") or none ("clean"). Scores are of the whole model and, `loss`
and `lc`, of the path 1, 0.8. Every strategy keeps as many rows; LoRA in the last layers,
below which hidden states are computed once, learns them for as many steps; the NLL of the held-out
answers, which are never swapped, is compared with that of random draws. Beside it stand two proxies
that a trial without classes could use, and how well scores find the swapped answers, or those of
which the words are shuffled. Settings were fixed on another split. Finished seeds are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeClassifier, RidgeCV
from sklearn.metrics import roc_auc_score

import lc_engine as lc
from benchmarks.language.finetune_tables import print_tables
from benchmarks.language.lora import Halves
from lc_engine.bench.language_data import conversations, function_calls, smollm2
from lc_engine.selection import select

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from lc_engine.language.tokens import Tokens

SWAPPED, GUARD, DRAWS, STEPS = 0.25, 0.1, 3, 30
CLUSTERS = 20
# Without the system text of the model's own, which more than doubles the tokens of these rows.
TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Plan(NamedTuple):
    """Rows of a set that are used, held out and kept."""

    rows: int
    held_out: int
    keep: int


PLANS = {
    "chatterbot": Plan(500, 100, 80),
    "bfcl": Plan(400, 80, 80),
}
Row = dict[str, str]


def rows_of(name: str) -> list[Row]:
    """Return the rows of a set: of talk those drawn, of function calls those of fewest letters."""
    if name == "chatterbot":
        talk = conversations()
        drawn = np.random.default_rng(0).permutation(len(talk))[: PLANS[name].rows]
        return [talk[i] for i in drawn]
    calls = sorted(function_calls(), key=lambda row: len(row["prompt"] + row["response"]))
    return calls[: PLANS[name].rows]


class Split(NamedTuple):
    """A seed's rows as indices: held out, to choose from, and those with another answer."""

    held: NDArray[np.intp]
    pool: NDArray[np.intp]
    swapped: NDArray[np.bool_]
    answers: NDArray[np.intp]


def split_of(count: int, plan: Plan, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    pool = order[plan.held_out :]
    swapped = np.zeros(len(pool), bool)
    swapped[: round(SWAPPED * len(pool))] = True  # the order is random already
    answers = pool.copy()
    answers[swapped] = np.roll(pool[swapped], 1)
    return Split(order[: plan.held_out], pool, swapped, answers)


def places(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.argsort().argsort() / len(values)


def suspicion(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return numbers that are high where an answer may be wrong, by name."""
    ifd, nll = places(columns["ifd"]), places(columns["nll"])
    names = ("ifd", "ifd_ppl", "mean_delta", "nll", "loss")
    return {name: columns[name] for name in names} | {
        "lc": -columns["lc"],
        "ifd + nll": ifd + nll,
        "max(ifd, nll)": np.maximum(ifd, nll),
    }


def choices(
    columns: dict[str, Any], features: dict[str, NDArray[np.float32]], keep: int, seed: int
) -> dict[str, list[NDArray[np.intp]]]:
    """Return the rows that each strategy keeps, once per draw; features by pooling, (N, D) each."""
    every = np.arange(len(columns["nll"]))

    def chosen(strategy: str, rows: NDArray[np.intp] = every, **more: Any) -> NDArray[np.intp]:
        table = {n: v[rows] for n, v in columns.items()} | {"id": rows}
        if "pooling" in more:
            more["features"] = features[more.pop("pooling")][rows]
        return select(table, keep, strategy, by=None, **{"seed": seed, **more})

    def drawn(rows: NDArray[np.intp] = every) -> list[NDArray[np.intp]]:
        return [chosen("random", rows, seed=10 * seed + i) for i in range(DRAWS)]

    doubt = suspicion(columns)
    count = round((1 - GUARD) * len(every))
    behind = {name: np.sort(np.argsort(doubt[name])[:count]) for name in ("ifd", "ifd + nll")}
    below = np.flatnonzero(columns["ifd"] < 1)
    found = {
        "random": drawn(),
        "easy": [chosen("easy", score="nll")],
        "highest ifd below 1": [chosen("hard", below, score="ifd")] if len(below) > keep else [],
        "ifd + nll guard, random": drawn(behind["ifd + nll"]),
        "ifd guard, herding": [chosen("herding", behind["ifd"], pooling="mean")],
    }
    for pooling in features:
        found[f"herding, {pooling}"] = [chosen("herding", pooling=pooling)]
    found["kcenter, mean"] = [chosen("kcenter", pooling="mean")]
    found["easy_diverse, mean"] = [chosen("easy_diverse", pooling="mean", score="nll")]
    return found


class Proxies:
    """What a trial without classes could judge a selection by, on the rows that it left.

    Args:
        prompts: (N, D) mean last hidden states of the prompts.
        answers: (N, D) mean embeddings of the answers' tokens.
        features: (N, D) of the responses, which are clustered.
    """

    def __init__(
        self,
        prompts: NDArray[np.float32],
        answers: NDArray[np.float32],
        features: NDArray[np.float32],
        seed: int,
    ) -> None:
        self.prompts, self.answers, self.features = prompts, answers, features
        self.clusters = KMeans(CLUSTERS, n_init=3, random_state=seed).fit_predict(features)

    def judge(self, kept: NDArray[np.intp]) -> dict[str, float]:
        """Return the R² of a ridge map from prompts to answers, and the accuracy in clusters."""
        left = np.setdiff1d(np.arange(len(self.prompts)), kept)
        scale = self.prompts.std()
        ridge = RidgeCV(np.logspace(-1, 4, 11)).fit(self.prompts[kept] / scale, self.answers[kept])
        error = ((ridge.predict(self.prompts[left] / scale) - self.answers[left]) ** 2).sum()
        spread = ((self.answers[left] - self.answers.mean(0)) ** 2).sum()
        classifier = RidgeClassifier(100.0).fit(
            self.features[kept] / self.features.std(), self.clusters[kept]
        )
        hits = classifier.predict(self.features[left] / self.features.std()) == self.clusters[left]
        with np.errstate(invalid="ignore"):  # a cluster of kept rows alone is NaN
            of_each = np.bincount(self.clusters[left], hits) / np.bincount(self.clusters[left])
        return {"ridge": float(1 - error / spread), "clusters": 100 * float(np.nanmean(of_each))}


def shuffled(row: Row, rng: np.random.Generator) -> Row:
    words = row["response"].split()
    return row | {"response": " ".join(rng.permutation(words).tolist())}


def score(scorer: Any, rows: list[Row]) -> dict[str, NDArray[Any]]:
    table = lc.score(scorer, rows, progress=False)
    assert set(table.column("status")) == {"ok"}
    names = ("loss", "lc", "lc_std", "ifd", "ifd_ppl", "mean_delta")
    columns = {name: np.asarray(table.column(name), np.float32) for name in names}
    return columns | {"nll": np.log(np.asarray(table.column("perplexity"), np.float32))}


def found(setting: str, columns: dict[str, Any], wrong: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return how well each score finds the wrong rows."""
    return [
        {
            "kind": "found",
            "setting": setting,
            "by": name,
            "auroc": roc_auc_score(wrong, doubt),
            "worst tenth": float(wrong[np.argsort(-doubt)[: len(wrong) // 10]].mean()),
        }
        for name, doubt in suspicion(columns).items()
    ]


@torch.inference_mode()
def prepare(
    halves: Halves, tokens: list[Tokens], states: list[Tensor], seed: int
) -> tuple[dict[str, NDArray[np.float32]], Proxies]:
    """Return the features of rows by both poolings, and what judges a selection of them."""
    layers = halves.with_layers(halves.layers, halves.norm)
    pooled: dict[str, list[NDArray[np.float32]]] = {"mean": [], "weighted_mean": []}
    prompts, answers = [], []
    for row, below in zip(tokens, states, strict=True):
        last = layers(inputs_embeds=below[None], use_cache=False)[0][0].float().numpy()
        at = np.flatnonzero(row.response) - 1
        pooled["mean"].append(last[at].mean(0))
        pooled["weighted_mean"].append(np.average(last[at], 0, np.arange(1, len(at) + 1)))
        prompts.append(last[: at[0] + 1].mean(0))
        answers.append(halves.embed(torch.from_numpy(row.ids[row.response])).float().mean(0))
    features = {name: np.stack(values).astype(np.float32) for name, values in pooled.items()}
    proxies = Proxies(np.stack(prompts), torch.stack(answers).numpy(), features["mean"], seed)
    return features, proxies


class Experiment:
    """A set with the scores of its rows, which the seeds share."""

    def __init__(self, name: str) -> None:
        self.name, self.plan, self.base = name, PLANS[name], rows_of(name)
        self.scorer = lc.Scorer.for_causal_lm(
            str(smollm2()),
            path=lc.LearningPath.explicit([1.0, 0.8]),
            ifd=True,
            chat_template=TEMPLATE,
        )
        self.halves = Halves(self.scorer.model.requires_grad_(False))
        self.columns = score(self.scorer, self.base)

    def run(self, seed: int) -> list[dict[str, Any]]:
        """Return the records of a seed."""
        split = split_of(len(self.base), self.plan, seed)
        rows = [self.base[i] for i in split.pool]
        clean = {name: values[split.pool] for name, values in self.columns.items()}
        records = self.trained("clean", rows, clean, split, seed)
        where, rng = np.flatnonzero(split.swapped), np.random.default_rng(seed)
        others = [self.base[i]["response"] for i in split.answers[where]]
        for setting in ("shuffled", "swapped"):
            damaged = [
                shuffled(rows[i], rng) if setting == "shuffled" else rows[i] | {"response": other}
                for i, other in zip(where, others, strict=True)
            ]
            columns = {name: values.copy() for name, values in clean.items()}
            for name, values in score(self.scorer, damaged).items():
                columns[name][where] = values
            records += found(setting, columns, split.swapped)
        mixed = dict(enumerate(rows)) | dict(zip(where.tolist(), damaged, strict=True))
        return records + self.trained("swapped", list(mixed.values()), columns, split, seed)

    def trained(
        self, setting: str, rows: list[Row], columns: dict[str, Any], split: Split, seed: int
    ) -> list[dict[str, Any]]:
        """Return a record for every selection that was trained on."""
        halves, every = self.halves, [*rows, *(self.base[i] for i in split.held)]
        source = self.scorer.transform.open_source(every)
        tokens = list(next(source.batches(len(every))).inputs)
        held = tokens[len(rows) :]
        below = halves.states(tokens)
        states, held_states = below[: len(rows)], below[len(rows) :]
        features, proxies = prepare(halves, tokens[: len(rows)], states, seed)
        asked = choices(columns, features, self.plan.keep, seed)
        wrong = split.swapped if setting == "swapped" else np.zeros(len(rows), bool)
        if wrong.any():
            right = np.flatnonzero(~wrong)
            draws = [np.random.default_rng([seed, i]) for i in range(DRAWS)]
            asked["random among the right ones"] = [
                rng.choice(right, self.plan.keep, replace=False) for rng in draws
            ]
        before = halves.nll(halves.adapted(seed), held_states, held)
        records: list[dict[str, Any]] = [{"kind": "untrained", "setting": setting, "nll": before}]
        for strategy, kept_by_draw in asked.items():
            for draw, kept in enumerate(kept_by_draw):
                some = [states[i] for i in kept], [tokens[i] for i in kept]
                nll = halves.nll(halves.train(*some, seed, STEPS), held_states, held)
                what = {"kind": "trained", "setting": setting, "strategy": strategy, "draw": draw}
                result = {"nll": nll, "wrong": float(wrong[kept].mean())} | proxies.judge(kept)
                records.append(what | result)
                print(self.name, seed, records[-1], flush=True)
        return records


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.open()] if out.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, help="one line per selection")
    parser.add_argument("--sets", default="chatterbot,bfcl")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    done = {(record["set"], record["seed"]) for record in read(asked.out)}
    made: dict[str, Experiment] = {}
    for seed in range(asked.seeds):
        for name in asked.sets.split(","):
            if (name, seed) not in done:
                made[name] = made.get(name) or Experiment(name)
                records = made[name].run(seed)
                with asked.out.open("a") as file:
                    lines = (json.dumps({"set": name, "seed": seed} | r) for r in records)
                    file.writelines(line + "\n" for line in lines)
    print_tables(read(asked.out))


if __name__ == "__main__":
    main()
