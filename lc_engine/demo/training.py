"""The same classifier trained on every subset: how good a choice of samples is."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lc_engine import naive
from lc_engine.selection import select

if TYPE_CHECKING:
    from lc_engine.data.batch import Source
    from lc_engine.data.table import ScoreTable
    from lc_engine.demo.settings import Settings

# One setting for every subset: AdamW's step and decay, and rows per step.
_RATE, _DECAY, _BATCH = 3e-3, 0.05, 64


class Features(NamedTuple):
    """Unmasked features (N, D) and labels (N,) of a source, in its order."""

    values: Tensor
    labels: Tensor

    @classmethod
    def of(cls, model: nn.Module, source: Source, batch_size: int) -> Features:
        """Run the model without its classifier over a source whose rows are all ok."""
        extractor = naive.feature_extractor(model)
        with torch.inference_mode():
            pairs = [
                (extractor(batch.inputs), batch.labels) for batch in source.batches(batch_size)
            ]
        values, labels = zip(*pairs, strict=True)
        # Cloned: a tensor made under inference mode cannot be trained on.
        return cls(torch.cat(values).clone(), torch.cat(labels))


@dataclass(frozen=True)
class Trained:
    """Test accuracies of the classifier, trained on the subsets of one strategy.

    Attributes:
        name: of the strategy.
        samples: in each subset.
        accuracies: one per seed, in [0, 1].
    """

    name: str
    samples: int
    accuracies: list[float]

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return 100 * statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Standard deviation over the seeds, in points."""
        return 100 * statistics.stdev(self.accuracies)


def choose_subsets(
    table: ScoreTable, gamma: float, settings: Settings, seed: int
) -> dict[str, list[np.ndarray]]:
    """Choose row numbers of the table per strategy, one array per seed."""
    ids = table.column("id")
    row_of = {name: row for row, name in enumerate(ids.tolist())}

    def choose(strategy: str, seed: int, gamma: float | Literal["auto"] = "auto") -> np.ndarray:
        kept = select(table, settings.keep, strategy, seed=seed, gamma=gamma)
        return np.array([row_of[name] for name in kept.tolist()])

    seeds = range(seed, seed + settings.seeds)
    return {
        "all": [np.arange(len(ids))] * settings.seeds,
        "learning complexity": [choose("flexrand", one, gamma) for one in seeds],
        "random": [choose("random", one) for one in seeds],
        "easiest only": [choose("easy", seed)] * settings.seeds,
        "hardest only": [choose("hard", seed)] * settings.seeds,
    }


def train_each(
    name: str,
    subsets: list[np.ndarray],
    train: Features,
    test: Features,
    settings: Settings,
    seed: int,
) -> Trained:
    """Train on every subset with a seed of its own, and test."""
    classes = int(train.labels.max()) + 1
    accuracies = []
    for number, rows in enumerate(subsets):
        probe = train_probe(
            train.values[rows], train.labels[rows], classes, settings.steps, seed + number
        )
        with torch.no_grad():
            right = probe(test.values).argmax(1) == test.labels
        accuracies.append(float(right.double().mean()))
    return Trained(name, len(subsets[0]), accuracies)


def train_probe(features: Tensor, labels: Tensor, classes: int, steps: int, seed: int) -> nn.Linear:
    """Train a linear classifier by AdamW with cosine decay: as many steps whatever N is.

    Args:
        features: (N, D) float32.
        labels: (N,) integers in [0, classes).
        classes: C.
        steps: batches of 64 rows, drawn with replacement.
        seed: of the first weights and of the batches.

    Returns:
        A layer for features as they are; their mean and scale are folded into it.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, scale = features.mean(0), (features - features.mean(0)).std()
    inputs = (features - mean) / scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = nn.Linear(features.shape[1], classes)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (_BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(probe(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        probe.weight.div_(scale)
        probe.bias.sub_(probe.weight @ mean)
    return probe
