"""Check and time every operator on this machine's device.

    python -m benchmarks.gpu --csv results.csv

Exits with status 1 if a result is wrong or a scoring call takes more than one launch, and with 2 if
there is no device. `--rehearse` runs all of it at tiny sizes on the CPU, with the kernels in
Triton's interpreter (TRITON_INTERPRET=1), where no time means anything.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import triton

from benchmarks.gpu import operators
from benchmarks.gpu.device import chosen_device, device_name
from benchmarks.gpu.measure import Measurement, Roof, measure, measure_roof
from lc_engine.kernels import work_model
from lc_engine.kernels.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.gpu.operators import Contest, Sizes
    from lc_engine.kernels.targets import Target

COLUMNS = (
    "operator", "dtype", "provider", "median_ms", "p20_ms", "p80_ms", "peak_mib", "launches",
    "max_error", "datasheet_floor_ms", "bound", "of_measured_roof", "device", "torch", "triton",
)  # fmt: skip

OPERATORS: dict[str, Callable[[Target, Sizes], Iterator[Contest]]] = {
    "apply_thresholds": operators.thresholds,
    "linear_confidence": operators.linear,
    "mlp_confidence": operators.mlp,
    "prototype_confidence": operators.prototype,
    "masked_linear": operators.masked_linear,
    "token_nll": operators.token_nll,
}


def floor(contest: Contest, target: Target) -> work_model.Estimate:
    """Return the work model's time on the accelerator of this family."""
    _, device = work_model.sheet_of(target)
    return work_model.estimate(contest.work, device, contest.dtype.itemsize)


def of_roof(contest: Contest, roof: Roof, measured: Measurement) -> float:
    """Return the fraction of the rate that this device's libraries reach: FLOPs, else bytes."""
    seconds = measured.median_ms * 1e-3
    if contest.work.flops:
        return contest.work.flops / seconds / roof.flops[contest.dtype]
    return contest.work.bytes / seconds / roof.bandwidth


def run(
    contest: Contest, roof: Roof, target: Target, device: torch.device
) -> tuple[list[dict[str, object]], list[str]]:
    """Measure all contenders; return their rows and the faults found."""
    truth = contest.expected()
    estimate = floor(contest, target)
    rows: list[dict[str, object]] = []
    wrong: list[str] = []
    for provider, call in contest.contenders.items():
        error = float((contest.checked(call).double() - truth).abs().max())
        measured = measure(call, device, captured=contest.captured)
        if provider.startswith("lc_engine"):
            if not error <= contest.tolerance:
                wrong.append(f"{contest.name}, {provider}: error {error:.2e}")
            one_launch = "confidence" in contest.name and "split" not in provider
            # On a host no launch is counted.
            if one_launch and measured.launches not in (0, 1):
                wrong.append(f"{contest.name}, {provider}: {measured.launches} launches")
        values = (
            contest.name, str(contest.dtype), provider, measured.median_ms, measured.p20_ms,
            measured.p80_ms, measured.peak_mib, measured.launches, error, estimate.seconds * 1e3,
            estimate.bound, of_roof(contest, roof, measured), device_name(device),
            torch.__version__, triton.__version__,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        print(
            f"{contest.name} {contest.dtype} {provider}: {measured.median_ms:.3f} ms, "
            f"{measured.launches} launches, {measured.peak_mib:.0f} MiB, error {error:.1e}, "
            f"{of_roof(contest, roof, measured):.0%} of the measured roof",
            flush=True,
        )
    return rows, wrong


def main() -> int:
    """Run everything and return the exit status."""
    parser = argparse.ArgumentParser(description="Check and time the operators on a device.")
    parser.add_argument("--csv", type=Path, default=Path("gpu-benchmark.csv"))
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument("--minutes", type=float, default=7.0, help="start nothing new after this")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    arguments = parser.parse_args()
    device = chosen_device(rehearse=arguments.rehearse)
    if device is None:
        return 2
    torch.manual_seed(0)
    target = target_of(device)
    sizes = operators.TINY if arguments.rehearse else operators.Sizes()
    roof = measure_roof(device, 64 if arguments.rehearse else 8192)
    print({str(dtype): f"{rate / 1e12:.0f} TFLOP/s" for dtype, rate in roof.flops.items()})
    print(f"{roof.bandwidth / 1e9:.0f} GB/s copied")
    start, wrong = time.monotonic(), []
    with arguments.csv.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        contests = itertools.chain.from_iterable(
            OPERATORS[name](target, sizes) for name in arguments.operators
        )
        while True:
            with torch.device(device):
                contest = next(contests, None)
            if contest is None:
                break
            rows, faults = run(contest, roof, target, device)
            table.writerows(rows)
            wrong += faults
            if time.monotonic() - start > 60 * arguments.minutes:
                wrong.append("out of time: not every operator was measured; see --minutes")
                break
    print(f"wrote {arguments.csv}", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
