"""Small networks, and data in memory for them."""

from __future__ import annotations

import numpy as np
import timm
import torch
from torch import nn

from lc_engine.data.batch import Batch


class Network(nn.Module):
    """Has all that must come back: norm statistics, a frozen part, a module in evaluation mode."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 6, 3)
            self.norm = nn.BatchNorm2d(6)
            self.drop = nn.Dropout(0.5)
            self.inner = nn.Linear(6, 9)
            self.fc = nn.Linear(9, 4)
        self.register_buffer("calls", torch.zeros(1))
        self.norm.eval()
        self.inner.weight.requires_grad_(False)
        self.action = lambda module: None

    def forward(self, x):
        self.action(self)
        return self.fc(torch.relu(self.inner(self.drop(self.norm(self.conv(x)).mean((2, 3))))))


def bits(tensor: torch.Tensor) -> bytes:
    return (
        tensor.detach()
        .clone(memory_format=torch.contiguous_format)
        .reshape(-1)
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )


def state(model: nn.Module) -> dict[str, object]:
    """Everything that scoring may not change, bit for bit."""
    return {
        "weights": {n: bits(p) for n, p in model.named_parameters()},
        "buffers": {n: bits(b) for n, b in model.named_buffers()},
        "identities": [id(t) for t in (*model.parameters(), *model.buffers())],
        "strides": [t.stride() for t in (*model.parameters(), *model.buffers())],
        "training": [(n, m.training) for n, m in model.named_modules()],
        "requires_grad": [(n, p.requires_grad) for n, p in model.named_parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


class SmallNet(nn.Module):
    """Two convolutions, a norm layer, a hidden linear layer and a classifier."""

    def __init__(self, seed: int, classes: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 16), nn.GELU(),
            )  # fmt: skip
            self.fc = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


def tiny_vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, embed_dim=24, num_heads=2,
        num_classes=5,
    ).eval()  # fmt: skip


class Memory:
    """A source over tensors, any of whose rows may already be bad."""

    classes: list[str] | None = None

    def __init__(self, inputs, labels, status=None, fail_at=None) -> None:
        self.inputs, self.labels = inputs, labels
        self.status = status or ["ok"] * len(inputs)
        self.fail_at = fail_at

    def __len__(self) -> int:
        return len(self.inputs)

    def digest(self) -> str:
        return str(hash(self.inputs.sum().item()))

    def describe(self) -> dict[str, object]:
        return {"kind": "memory"}

    def batches(self, batch_size, start=0, stop=None):
        stop = len(self) if stop is None else stop
        for first in range(start, stop, batch_size):
            if self.fail_at is not None and first >= self.fail_at:
                raise OSError("the disk is gone")
            rows = list(range(first, min(first + batch_size, stop)))
            ok = [i for i in rows if self.status[i] == "ok"]
            yield Batch(
                ids=np.array(rows),
                inputs=self.inputs[ok],
                labels=self.labels[rows],
                status=[self.status[i] for i in rows],
                detail=["" if self.status[i] == "ok" else "cannot be read" for i in rows],
            )


def data(rows: int = 12, classes: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, 6, 6, generator=generator), torch.arange(rows) % classes
