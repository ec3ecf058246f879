"""Train a network on Fashion-MNIST for a few minutes, where no package carries trained weights.

python -m benchmarks.backbone.pretrain --model resnet18 --minutes 10 --out resnet18.safetensors

Rankings by sub-models of a random network say little about those of a trained one. The benchmarks
score digits, so that these weights, like EfficientNet-Lite0's from ImageNet, are transferred to
other images. Images are enlarged and normalized as `setup.transform` does; the random offset of the
crop is the only augmentation.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.backbone.setup import TRAINED_SIDE, untrained
from benchmarks.selection.images import fashion_part

# Small images first, for more epochs in the same time, then the size that is scored.
SMALL_SIDE, SMALL_SHARE = 64, 0.7
BATCH = 64
PEAK_RATE = {"resnet18": 1e-3, "vit_tiny_patch16_224": 1e-3}
WARM_UP = 0.05
# timm initializes a ViT's position embeddings at 1/20 of its patch embeddings, and in a few minutes
# they stay too small to tell patches apart.
POSITIONS = 25


def fashion_mnist(part: str) -> tuple[Tensor, Tensor]:
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of the "train" or "t10k" part."""
    images, labels = fashion_part(part)
    return torch.tensor(images), torch.tensor(labels)


def enlarge(images: Tensor, side: int, generator: torch.Generator | None) -> Tensor:
    """Resize grey images and crop them, centered or at random, to the network's input."""
    whole = int(side / 0.875)
    large = functional.interpolate(
        images[:, None].float(), size=whole, mode="bicubic", antialias=True
    )
    large = (large.round().clamp(0, 255) - 127) / 128
    if generator is None:
        offsets = torch.full((len(images), 2), round((whole - side) / 2))
    else:
        offsets = torch.randint(whole - side + 1, (len(images), 2), generator=generator)
    crops = [
        image[:, y : y + side, x : x + side]
        for image, (y, x) in zip(large, offsets.tolist(), strict=True)
    ]
    three = torch.stack(crops).expand(-1, 3, -1, -1)
    return three.contiguous(memory_format=torch.channels_last)


def rate(share: float) -> float:
    """Return the learning rate, as a share of the peak, after a share of the time."""
    return min(share / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * min(share, 1)))


def train(network: nn.Module, peak: float, minutes: float) -> int:
    """Train for a time and return the number of images seen."""
    images, labels = fashion_mnist("train")
    generator = torch.Generator().manual_seed(0)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, fused=True)
    began, seen, order = time.perf_counter(), 0, torch.empty(0, dtype=torch.int64)
    network.train()
    while (share := (time.perf_counter() - began) / (60 * minutes)) < 1:
        if len(order) < BATCH:
            order = torch.randperm(len(labels), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        side = SMALL_SIDE if share < SMALL_SHARE else TRAINED_SIDE
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(share)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(enlarge(images[rows], side, generator))
        loss = functional.cross_entropy(logits.float(), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seen += BATCH
        if seen % (100 * BATCH) == 0:
            print(f"{share:4.0%}: {seen} images, loss {loss.item():.3f}", flush=True)
    return seen


def accuracy(network: nn.Module) -> float:
    """Return the test accuracy."""
    images, labels = fashion_mnist("t10k")
    network.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        predicted = [
            network(enlarge(part, TRAINED_SIDE, None)).argmax(1) for part in images.split(BATCH)
        ]
    return (torch.cat(predicted) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=PEAK_RATE, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    # A ViT resamples its position embeddings at every step, for both image sizes.
    keywords = {"dynamic_img_size": True} if asked.model.startswith("vit") else {}
    network = untrained(asked.model, TRAINED_SIDE, num_classes=10, **keywords)
    if "dynamic_img_size" in keywords:
        network.pos_embed.data.mul_(POSITIONS)
    network = network.to(memory_format=torch.channels_last)
    seen = train(network, PEAK_RATE[asked.model], asked.minutes)
    right = accuracy(network)
    print(f"{asked.model}: test accuracy {right:.2%} after {seen} images")
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, asked.out, {"accuracy": f"{right:.4f}", "images seen": str(seen)})


if __name__ == "__main__":
    main()
