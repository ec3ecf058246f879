"""The sampler, the subset and the weights in the training loops of transformers and Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, WeightedRandomSampler

from helpers.frameworks import fit_with_lightning, lightning
from helpers.selection_tables import random_columns
from lc_engine.selection import select
from lc_engine.selection.sampler import FlexRandSampler, flexrand_weights

if TYPE_CHECKING:
    from pathlib import Path

# Lightning warns of deprecations in torch, of few workers and of rare logging.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore::UserWarning")

ROWS, BUDGET, EPOCHS = 120, 24, 3


class RecordingDataset(Dataset[dict[str, Tensor]]):
    """Rows of two numbers and a label, and a record of every index read."""

    def __init__(self) -> None:
        self.scores = random_columns(0, ROWS) | {"id": np.arange(ROWS)}
        self.inputs = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0))
        self.read: list[int] = []

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.read.append(index)
        label = torch.tensor(int(self.scores["label"][index]))
        return {"inputs": self.inputs[index], "labels": label}

    def epochs(self) -> list[list[int]]:
        """Indices read, an epoch of BUDGET each."""
        assert len(self.read) == EPOCHS * BUDGET
        return [self.read[i : i + BUDGET] for i in range(0, len(self.read), BUDGET)]


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layer(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train_with_transformers(data: Any, folder: Path, sampler: Sampler[int] | None = None) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers comes with the extra [language]"
    )

    class Trainer(transformers.Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return super()._get_train_sampler(train_dataset) if sampler is None else sampler

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=7,
        use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(Classifier(), arguments, train_dataset=data).train()


def train_with_lightning(data: Any, folder: Path, sampler: Sampler[int] | None = None) -> None:
    class Module(lightning().LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = Classifier()

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            loss: Tensor = self.classifier(**batch)["loss"]
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = DataLoader(data, batch_size=7, sampler=sampler, shuffle=sampler is None)
    fit_with_lightning(Module(), loader, EPOCHS)


LOOPS = pytest.mark.parametrize(
    "train", [train_with_transformers, train_with_lightning], ids=["transformers", "lightning"]
)


@LOOPS
@pytest.mark.slow
def test_each_epoch_is_the_subset_that_set_epoch_promises(train: Any, tmp_path: Path) -> None:
    data = RecordingDataset()
    sampler = FlexRandSampler(data.scores, BUDGET, gamma=0.2, seed=3)
    train(data, tmp_path, sampler)
    promised = FlexRandSampler(data.scores, BUDGET, gamma=0.2, seed=3)
    for epoch, seen in enumerate(data.epochs()):
        promised.set_epoch(epoch)
        assert seen == list(promised)
    assert data.epochs()[0] != data.epochs()[1]


@LOOPS
@pytest.mark.slow
def test_only_the_subset_is_read(train: Any, tmp_path: Path) -> None:
    data = RecordingDataset()
    kept = select(data.scores, BUDGET, gamma=0.2)
    train(Subset(data, kept.tolist()), tmp_path)
    assert all(sorted(seen) == kept.tolist() for seen in data.epochs())


@LOOPS
def test_rows_of_no_weight_are_never_read(train: Any, tmp_path: Path) -> None:
    data = RecordingDataset()
    data.scores["status"] = np.where(np.arange(ROWS) % 2 == 0, "unreadable", "ok")
    weights = flexrand_weights(data.scores, BUDGET, gamma=0.2)
    train(data, tmp_path, WeightedRandomSampler(weights.tolist(), BUDGET))
    assert len(data.epochs()) == EPOCHS
    assert all(index % 2 for index in data.read)
