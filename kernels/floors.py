"""Roofline of example launches of every operator: the least time that each device needs.

    python -m lc_engine.kernels.floors

`lc-engine bench --roofline` prints the same beside times measured on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lc_engine.kernels import config, work_model
from lc_engine.kernels.work_model import DEVICES, Device, Estimate, Work

if TYPE_CHECKING:
    from lc_engine.kernels.targets import Target

ITEMSIZE = 2  # of bfloat16


@dataclass(frozen=True)
class Launch:
    """One launch in bfloat16.

    Attributes:
        operator: name of the operator.
        sizes: sizes of its tensors by the letters of the operator's docstring.
        logit: `logit` of `prototype_confidence`.
    """

    operator: str
    sizes: dict[str, int]
    logit: str = ""

    @property
    def name(self) -> str:
        """Operator and sizes."""
        sizes = " ".join(f"{letter}={size}" for letter, size in self.sizes.items())
        return " ".join(filter(None, (self.operator, self.logit, sizes)))

    def work(self, target: Target) -> Work:
        """Return its work with the tile and formulation that a target takes."""
        sizes = tuple(self.sizes.values())
        if self.operator == "linear_confidence":
            _, depth, classes, sub_models = sizes
            premasked = config.premask(target, ITEMSIZE, classes, depth, sub_models)
            tile = config.linear(target, ITEMSIZE, classes, sub_models, premasked=premasked)
            return work_model.linear(*sizes, ITEMSIZE, tile, premasked=premasked)
        if self.operator == "prototype_confidence":
            cosine = self.logit == "cosine"
            tile = config.prototype(target, ITEMSIZE, cosine)
            return work_model.prototype(*sizes, ITEMSIZE, tile, cosine=cosine)
        if self.operator == "mlp_confidence":
            return work_model.mlp(*sizes, ITEMSIZE, config.mlp(target, ITEMSIZE))
        if self.operator == "token_nll":
            tile = config.vocabulary(target, ITEMSIZE, scored=False, entropy=False)
            return work_model.token_nll(*sizes, ITEMSIZE, tile)
        if self.operator == "masked_linear":
            return work_model.masked_linear(*sizes, ITEMSIZE, config.product(target, ITEMSIZE))
        return work_model.apply_thresholds(*sizes, ITEMSIZE)

    def floor(self, device: Device) -> Estimate:
        """Return the least time that a device needs, and its bound."""
        return work_model.estimate(self.work(device.target), device, ITEMSIZE)


def _linear(samples: int, depth: int, classes: int) -> Launch:
    return Launch("linear_confidence", {"N": samples, "D": depth, "C": classes, "K": 50})


# These fit in every device's memory and fill the device.
LAUNCHES = (
    _linear(131_072, 512, 10),
    _linear(131_072, 768, 1000),
    _linear(131_072, 1280, 100),
    _linear(131_072, 2048, 1000),
    _linear(8192, 768, 21841),
    Launch("prototype_confidence", {"N": 16_384, "D": 768, "C": 1000, "K": 50}, "inverse_distance"),
    Launch("prototype_confidence", {"N": 16_384, "D": 768, "C": 1000, "K": 50}, "cosine"),
    Launch("mlp_confidence", {"N": 131_072, "D": 768, "H": 128, "C": 1000, "K": 50}),
    Launch("token_nll", {"T": 4096, "D": 576, "V": 49_152, "K": 8}),
    Launch("masked_linear", {"M": 4096, "D": 768, "E": 3072, "K": 8}),
    Launch("apply_thresholds", {"weights": 84_934_656}),
)


def lines() -> list[str]:
    """Return the lines of a table: milliseconds and bound of every launch on every device."""
    head = f"{'bfloat16, ms and bound at datasheet rates':64}"
    rows = [head + "".join(f"{name:>22}" for name in DEVICES)]
    for launch in LAUNCHES:
        floors = [launch.floor(device) for device in DEVICES.values()]
        cells = "".join(f"{one.seconds * 1e3:10.3f} {one.bound:>11}" for one in floors)
        rows.append(f"{launch.name:64}{cells}")
    return rows


if __name__ == "__main__":
    print("\n".join(lines()))
