"""What 8-bit products of a linear head would gain, and what they would do to its scores.

python -m benchmarks.gpu.float8 [--cache FOLDER]

Needs no GPU. The gain is that of the work model. The scores are lc over K sub-models of a head, on
features of trained networks over real data: in float64, and with both operands of each product
rounded but their sum exact, which is the best that a kernel could do. docs/gpu.md has the result:
float8 is not offered.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.selection import backbones, images
from lc_engine import naive
from lc_engine._util import wheels
from lc_engine.bench.language_data import labelled_texts, mini_lm
from lc_engine.bench.parity import Tolerance, compare
from lc_engine.data.open import open_source
from lc_engine.demo.training import train_probe
from lc_engine.kernels.floors import LAUNCHES
from lc_engine.kernels.work_model import DEVICES
from lc_engine.models.classifier import call
from lc_engine.models.load import ModelSpec
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.kernels.work_model import Device

BATCH = 16
STEPS = 2_000  # of a probe
ASKED = Tolerance(difference=1.0, correlation=0.9995, kept=0.99)
# Devices with 8-bit floating-point products.
FASTER = ("H100", "B200", "RTX 5090", "MI300X", "MI355X")
PATHS = {"50": LearningPath.geometric(50), "8": LearningPath.gauss(8)}


class Problem(NamedTuple):
    """Features (N, D), a head of C classes in float32, and labels (N,)."""

    name: str
    features: Tensor
    head: nn.Linear
    labels: Tensor


def to_bfloat16(operand: Tensor) -> Tensor:
    """Round an operand (rows, D) to bfloat16."""
    return operand.bfloat16().double()


def to_float8(operand: Tensor) -> Tensor:
    """Round an operand (rows, D) to e4m3, its rows scaled to the largest number of that."""
    scale = operand.abs().amax(1, keepdim=True).clamp_min(1e-30) / 448.0
    return (operand / scale).float().to(torch.float8_e4m3fn).double() * scale


def to_int8(operand: Tensor) -> Tensor:
    """Round an operand (rows, D) to multiples of 1/127 of each row's largest magnitude."""
    scale = operand.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127.0
    return (operand / scale).round() * scale


ROUNDINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "bfloat16": (to_bfloat16, to_bfloat16),
    "e4m3": (to_float8, to_float8),
    "e4m3 weights, bfloat16 features": (to_bfloat16, to_float8),
    "int8": (to_int8, to_int8),
}


def rounded_log_prob(
    features: Tensor,
    weight: Tensor,
    threshold: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    round_weight: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return log p (N,) of one sub-model, its masked weight rounded; masks are the exact ones."""
    masked = torch.where(weight.abs() >= threshold, weight, 0)
    return naive.masked_log_prob(features, round_weight(masked), weight.new_tensor(0), bias, labels)


def images_and_texts(cache: Path) -> Iterator[Problem]:
    """Yield images under a probe and under ImageNet's classes, and texts under a probe."""
    found = images.fashion_mnist()
    model, prepare = backbones.lite0(cache)
    starts = range(0, len(found.train), BATCH)
    with torch.inference_mode():
        parts = [model(prepare(found.train[start : start + BATCH])) for start in starts]
    features, labels = torch.cat(parts).clone(), torch.from_numpy(found.train_labels)
    yield probed("Fashion-MNIST, EfficientNet-Lite0", features, labels)
    own = ModelSpec("efficientnet-lite0").load().model.get_submodule("classifier")
    assert isinstance(own, nn.Linear)
    with torch.no_grad():
        likeliest = own(features).argmax(1)
    yield Problem("the same, the network's own classes", features, own, likeliest)
    encoder = ModelSpec(str(mini_lm())).load()
    batches = list(open_source(labelled_texts(), transform=encoder.transform).batches(BATCH))
    with torch.inference_mode():
        features = torch.cat([call(encoder.model, batch.inputs) for batch in batches]).clone()
    yield probed("texts, MiniLM", features, torch.cat([batch.labels for batch in batches]))


def probed(name: str, features: Tensor, labels: Tensor) -> Problem:
    """Return the problem of a linear classifier that is trained on half of the rows."""
    classes = int(labels.max()) + 1
    return Problem(
        name, features, train_probe(features[::2], labels[::2], classes, STEPS, seed=0), labels
    )


def gains(device: Device) -> Iterator[tuple[str, float, float]]:
    """Yield the sizes of a head, and how much faster 8 bits are than 16: bounds from both sides.

    First where all units of the device overlap, then where none do. Every device here multiplies
    e4m3 at twice its rate in bfloat16, and the softmax stays float32.
    """
    for launch in LAUNCHES:
        if launch.operator != "linear_confidence":
            continue
        work = launch.work(device.target)
        matrix, memory = work.flops / device.half, work.bytes / device.bandwidth
        others = (work.vector_ops / device.vector, work.exponentials / device.exponentials)
        overlapped, apart = (
            how((matrix, memory, *others)) / how((matrix / 2, memory / 2, *others))
            for how in (max, sum)
        )
        yield launch.name, overlapped, apart


def main() -> None:
    """Print the gains, and how lc differs from float64."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=wheels.cache_folder() / "wheels")
    cache = parser.parse_args().cache
    cache.mkdir(parents=True, exist_ok=True)
    print("| sizes | " + " | ".join(FASTER) + " |")
    print("|---|" + "---|" * len(FASTER))
    for each in zip(*(gains(DEVICES[name]) for name in FASTER), strict=True):
        cells = (f"{overlapped:.2f} / {apart:.2f}" for _, overlapped, apart in each)
        print(f"| {each[0][0]} | " + " | ".join(cells) + " |")
    print()
    print("| data | N, D, C | K | " + " | ".join(ROUNDINGS) + " |")
    print("|---|---|---|" + "---|" * len(ROUNDINGS))
    for problem in images_and_texts(cache):
        features, head = problem.features.double(), problem.head.double()
        sizes = f"{len(features):,}, {features.shape[1]:,}, {head.out_features:,}"
        for name, path in PATHS.items():
            exact = naive.linear_loop(features, problem.labels, head, path).lc.numpy()
            cells = []
            for of_features, of_weight in ROUNDINGS.values():
                log_prob = functools.partial(rounded_log_prob, round_weight=of_weight)
                rounded = of_features(features)
                lc = naive.linear_loop(rounded, problem.labels, head, path, log_prob).lc.numpy()
                parity = compare(exact, lc, 0.1, ASKED)
                cells.append(f"{parity.correlation:.5f}, {parity.same / parity.kept:.1%}")
            print(f"| {problem.name} | {sizes} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
