"""Train a network whose trained weights no package carries, on Fashion-MNIST, in minutes.

python -m benchmarks.backbone.pretrain --model resnet18 --minutes 10 --out resnet18.safetensors

How sub-models of a random network rank pictures says little about those of a trained one. The
benchmarks score digits, so what they measure with these weights is transfer to other pictures, as
with the ImageNet weights of EfficientNet-Lite0. Pictures are enlarged and normalised as
`setup.transform` does; a random place of the crop is the only augmentation.
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

# Small pictures first, which show more of the set in the same time, then those that are scored.
SMALL_SIDE, SMALL_SHARE = 64, 0.7
BATCH = 64
PEAK_RATE = {"resnet18": 1e-3, "vit_tiny_patch16_224": 1e-3}
WARM_UP = 0.05
# timm starts a ViT's positions at 1/20 of what pictures add to them, and in minutes they stay
# weak: the network would look at patches hardly knowing where they lie.
POSITIONS = 25


def fashion_mnist(part: str) -> tuple[Tensor, Tensor]:
    """Read the "train" or the "t10k" part: pictures (N, 28, 28) uint8 and labels (N,) int64."""
    pictures, labels = fashion_part(part)
    return torch.tensor(pictures), torch.tensor(labels)


def enlarge(pictures: Tensor, side: int, generator: torch.Generator | None) -> Tensor:
    """Resize grey pictures and crop them, in the centre or at random, to the network's input."""
    whole = int(side / 0.875)
    large = functional.interpolate(
        pictures[:, None].float(), size=whole, mode="bicubic", antialias=True
    )
    large = (large.round().clamp(0, 255) - 127) / 128
    if generator is None:
        places = torch.full((len(pictures), 2), round((whole - side) / 2))
    else:
        places = torch.randint(whole - side + 1, (len(pictures), 2), generator=generator)
    crops = [
        picture[:, y : y + side, x : x + side]
        for picture, (y, x) in zip(large, places.tolist(), strict=True)
    ]
    three = torch.stack(crops).expand(-1, 3, -1, -1)
    return three.contiguous(memory_format=torch.channels_last)


def rate(share: float) -> float:
    """Give the learning rate, as a share of the highest, after a share of the time."""
    return min(share / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * min(share, 1)))


def train(network: nn.Module, peak: float, minutes: float) -> int:
    """Train for a time; gives the number of pictures seen."""
    pictures, labels = fashion_mnist("train")
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
            logits = network(enlarge(pictures[rows], side, generator))
        loss = functional.cross_entropy(logits.float(), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seen += BATCH
        if seen % (100 * BATCH) == 0:
            print(f"{share:4.0%}: {seen} pictures, loss {loss.item():.3f}", flush=True)
    return seen


def accuracy(network: nn.Module) -> float:
    """Give the share of the test pictures that the network names."""
    pictures, labels = fashion_mnist("t10k")
    network.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        named = [
            network(enlarge(part, TRAINED_SIDE, None)).argmax(1) for part in pictures.split(BATCH)
        ]
    return (torch.cat(named) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=PEAK_RATE, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    # A ViT takes both sides while its positions are resampled at every step.
    keywords = {"dynamic_img_size": True} if asked.model.startswith("vit") else {}
    network = untrained(asked.model, TRAINED_SIDE, num_classes=10, **keywords)
    if "dynamic_img_size" in keywords:
        network.pos_embed.data.mul_(POSITIONS)
    network = network.to(memory_format=torch.channels_last)
    seen = train(network, PEAK_RATE[asked.model], asked.minutes)
    right = accuracy(network)
    print(f"{asked.model}: {right:.2%} of the test pictures right after {seen} pictures")
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, asked.out, {"accuracy": f"{right:.4f}", "images seen": str(seen)})


if __name__ == "__main__":
    main()
