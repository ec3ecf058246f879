"""`lc-engine bench --roofline`: the least time of every GPU launch, beside the measured one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lc_engine import ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from lc_engine.kernels.floors import Launch
    from lc_engine.ops.prototype_confidence import Logit


def roofline() -> str:
    """Return the table of floors and, where there is a device, the time of each launch on it.

    Raises:
        ValueError: Triton, in whose terms launches are counted, is not installed.
    """
    try:
        from lc_engine.kernels import floors
    except ImportError as error:
        raise ValueError(f"--roofline counts the tiles of Triton's kernels: {error}") from None
    lines = floors.lines()
    if not torch.cuda.is_available():
        return "\n".join([*lines, "", "measured: nothing, as there is no CUDA or ROCm device here"])
    from lc_engine.kernels import targets, work_model

    target = targets.target_of(torch.device("cuda", torch.cuda.current_device()))
    name, sheet = work_model.sheet_of(target)
    lines += ["", f"measured on {torch.cuda.get_device_name()}, beside the floor of {name}:"]
    for launch in floors.LAUNCHES:
        took, floor = _milliseconds(call(launch, "cuda")), launch.floor(sheet).seconds * 1e3
        lines.append(f"{launch.name:64}{took:10.3f} ms{floor:10.3f} ms {floor / took:8.0%}")
    return "\n".join(lines)


def call(launch: Launch, device: str) -> Callable[[], object]:
    """Return a function that runs a launch on random inputs.

    Heads are prepared here, as a job prepares them once.
    """
    seed = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=seed, device=device, dtype=torch.bfloat16)

    def labels(count: int, classes: int) -> torch.Tensor:
        return torch.randint(classes, (count,), generator=seed, device=device)

    sizes = tuple(launch.sizes.values())
    bounds = torch.linspace(0, 1, launch.sizes.get("K", 1), device=device)
    if launch.operator == "linear_confidence":
        samples, depth, classes, _ = sizes
        plan = ops.LinearPlan(normal(classes, depth), None, bounds)
        x, y = normal(samples, depth), labels(samples, classes)
        return lambda: plan(x, y)
    if launch.operator == "prototype_confidence":
        samples, depth, classes, sub_models = sizes
        logit: Logit = "cosine" if launch.logit == "cosine" else "inverse_distance"
        means = ops.PrototypePlan(normal(classes, depth), logit=logit)
        z, y = normal(sub_models, samples, depth), labels(samples, classes)
        return lambda: means(z, y)
    if launch.operator == "mlp_confidence":
        samples, depth, width, classes, _ = sizes
        weights = [normal(width, depth), normal(classes, width)]
        layers = ops.MLPPlan(weights, [None, None], bounds.expand(2, -1).contiguous())
        x, y = normal(samples, depth), labels(samples, classes)
        return lambda: layers(x, y)
    if launch.operator == "token_nll":
        tokens, depth, vocabulary, sub_models = sizes
        hidden, head = normal(sub_models, tokens, depth), normal(vocabulary, depth)
        y = labels(tokens, vocabulary)
        return lambda: ops.token_nll(hidden, head, y)
    if launch.operator == "masked_linear":
        rows, depth, width, sub_models = sizes
        x, weight = normal(sub_models, rows, depth), normal(width, depth)
        return lambda: ops.masked_linear(x, weight, None, bounds)
    (count,) = sizes
    whole = [part.clone() for part in torch.tensor_split(normal(count), 48)]
    live = [torch.empty_like(part) for part in whole]
    return lambda: ops.apply_thresholds(whole, live, [0.7] * len(whole))


def _milliseconds(run: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return float(do_bench(run, return_mode="median"))
