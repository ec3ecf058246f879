"""Commands and trainers of other frameworks, as the tests of the adapters run them."""

from __future__ import annotations

import copy
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from torch.utils.data import DataLoader


def run_command(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command in a folder and return its stdout and stderr; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def save_for_training(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a language model with a tokenizer that can pad."""
    model.save_pretrained(folder)
    padding = copy.deepcopy(tokenizer)
    padding.pad_token = "</s>"
    padding.save_pretrained(folder)


def llamafactory_config(folder: Path, dataset: str, **more: Any) -> dict[str, Any]:
    """LLaMA-Factory's configuration of one epoch of supervised fine-tuning on the CPU.

    Args:
        folder: of `model`, `dataset_info.json` and, later, `run`.
        dataset: a name in `dataset_info.json`.
        **more: further options.
    """
    return {
        "model_name_or_path": str(folder / "model"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": dataset,
        "dataset_dir": str(folder),
        "template": "default",
        "output_dir": str(folder / "run"),
        "num_train_epochs": 1,
        "gradient_accumulation_steps": 1,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
    } | more


def lightning() -> Any:
    """`lightning.pytorch`; skips the test where it is not installed."""
    return pytest.importorskip(
        "lightning.pytorch", reason="Lightning is not installed: make test-integrations"
    )


def fit_with_lightning(module: nn.Module, loader: DataLoader[Any], epochs: int) -> None:
    """Train on the CPU, without logs, checkpoints or progress."""
    lightning().Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, loader)
