"""Every instruction set that this processor has, forced, against float64."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lc_engine.ops import contract, philox

ROOT = Path(__file__).parents[2]
NEEDS = {
    "baseline": set(),
    "avx2": {"avx2", "fma", "bmi2"},
    "avx512": {"avx512f", "avx512bw"},
    "avx512_bf16": {"avx512f", "avx512bw", "avx512_bf16"},
}

# The core needs no torch, so neither does a process that only forces an instruction set.
SCRIPT = """
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location("lc_engine._native", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
print(core.cpu_isa())
given = np.load(sys.argv[2])
x, weight, bias, labels = (given[name] for name in ("x", "weight", "bias", "labels"))
out = {"linear": np.empty((len(given["thresholds"]), len(x)), np.float32)}
core.LinearPlan(weight, bias, None, given["thresholds"], False).run(x, labels, out["linear"], 2)
short, wide = given["x_bits"], given["weight_16"]
out["bfloat16"] = np.empty_like(out["linear"])
core.LinearPlan(wide, bias, None, given["thresholds"], True).run(short, labels, out["bfloat16"], 2)
for logit in ("inverse_distance", "neg_sq_distance", "cosine"):
    out[logit] = np.empty((1, len(x)), np.float32)
    core.PrototypePlan(weight, logit, 1.0).run(x[None], labels, out[logit], 2)
for activation in ("relu", "gelu"):
    out[activation] = np.empty((len(given["thresholds"]), len(x)), np.float32)
    layers = [weight, given["second"]]
    bounds = np.stack([given["thresholds"]] * 2)
    plan = core.MLPPlan(layers, [bias, None], None, bounds, activation)
    plan.run(x, given["few"], out[activation], 2)
out["random"] = np.empty_like(weight)
core.apply_thresholds([weight], [out["random"]], [0.5], [], 3, 2)
out["magnitude"] = np.empty_like(weight)
core.apply_thresholds([weight], [out["magnitude"]], [0.5], [], None, 2)
bounds, second = given["thresholds"], given["second"]
stack = np.stack([x] * len(bounds))
for activation in (None, "relu", "gelu"):
    name = f"layer {activation}"
    out[name] = np.empty((*stack.shape[:2], len(weight)), np.float32)
    core.masked_linear(stack, weight, bias, bounds, None, None, activation, out[name], 2)
out["nll"], out["entropy"] = np.empty((2, len(bounds), len(x)), np.float32)
core.token_nll(x, weight, bias, labels, bounds, None, None, out["nll"], out["entropy"], 2)
for name, seed in (("whole nll", None), ("random nll", 3)):
    out[name] = np.empty((1, len(x)), np.float32)
    kept = None if seed is None else np.array([0.5], np.float32)
    core.token_nll(x, weight, None, labels, kept, None, seed, out[name], None, 1)
bits = lambda array: (array.view(np.uint32) >> 16).astype(np.uint16)
out["bfloat16 layer"] = np.empty((1, len(x), len(weight)), np.uint16)
core.masked_linear(
    bits(x), bits(weight), None, bounds[:1], None, None, None, out["bfloat16 layer"], 2
)
one = (1, 1)
for name, dress in (("lists", np.asarray), ("bfloat16 lists", bits)):
    plan = core.SparseLayerPlan(dress(given["thin"])[:, None], bias, 1, one, (0, 0), one, "relu", 2)
    out[name] = np.empty((1, 1, len(x), len(weight)), dress(x).dtype)
    plan.run(dress(x)[None, None], out[name], 2)
for name, dress in (("winograd", np.asarray), ("bfloat16 winograd", bits)):
    kernel, like = dress(given["kernel"]), np.empty((*given["pixels"].shape[:3], len(bias)))
    for way, plan in (
        (name, core.WinogradPlan(kernel, bias, (1, 1), "relu6", False, 2)),
        (f"{name} int8", core.WinogradPlan(kernel, bias, (1, 1), "relu6", True, 2)),
        (f"{name[:-8]}direct int8",
         core.Int8ConvolutionPlan(kernel, bias, 3, one, one, one, "relu6", 2)),
    ):
        out[way] = like.astype(kernel.dtype)
        plan.run(dress(given["pixels"]), out[way], 2)
for name, dress in (("int8", np.asarray), ("bfloat16 int8", bits)):
    plan = core.Int8LinearPlan([dress(weight), dress(given["second"])], [bias, None],
                               ["relu", None], None, None, 0.0, 2)
    out[name] = np.empty((len(x), len(given["second"])), dress(x).dtype)
    plan.run(dress(x), out[name], 2)
for name, dress in (("int8 block", np.asarray), ("bfloat16 int8 block", bits)):
    def layers(*weights):
        nothing = [None] * len(weights)
        return core.Int8LinearPlan(
            [dress(one) for one in weights], nothing, nothing, None, None, 0.0, 2
        )
    eye = np.eye(219, dtype=np.float32)
    parts = layers(given["qkv"]), layers(eye), layers(eye, eye)
    tokens = dress(x).reshape(7, 11, 219)
    out[name] = np.empty_like(tokens)
    core.TransformerBlockPlan(*parts, 3, 0.4).run(tokens, out[name], 2)
for name, dress in (("pooled", np.asarray), ("bfloat16 pooled", bits)):
    pixels = dress(given["pixels"])
    images, height, width, channels = pixels.shape
    out[name] = np.empty((images, height - 1, width - 2, channels), pixels.dtype)
    core.max_pool(pixels, (2, 3), one, (0, 0), False, out[name], 2)
for name, dress in (("depthwise", np.asarray), ("bfloat16 depthwise", bits)):
    pixels, each = dress(given["pixels"]), np.ascontiguousarray(given["kernel"][0].T)
    out[name] = np.empty_like(pixels)
    plan = core.DepthwisePlan(each.reshape(-1, 3, 3), None, one, one, "relu6")
    plan.run(pixels, one, out[name], 2)
for name, dress in (("attention", np.asarray), ("bfloat16 attention", bits)):
    q, k = (dress(given[one]).reshape(-1, 3, 73)[:, :, :70] for one in ("x", "thin"))
    v = dress(x)[:43].reshape(-1, 3, 73)
    out[name] = np.empty((1, 77, 3, 73), v.dtype)
    views = [one[None].swapaxes(1, 2) for one in (q, k, v)]
    core.attention(*views, 2.0, out[name].swapaxes(1, 2), 2)
np.savez(sys.argv[3], **out)
"""


def run(isa: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, contract.native().__file__, *map(str, arguments)],
        env={**os.environ, "LC_ENGINE_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


def processor_has(isa: str) -> bool:
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return NEEDS[isa] <= flags


def log_softmax_all(logits: np.ndarray) -> np.ndarray:
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))


def log_softmax_at(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return log_softmax_all(logits)[np.arange(len(logits)), labels]


def cut(values: np.ndarray) -> np.ndarray:
    """What is left of float32 in the bits of bfloat16."""
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)


def windows_of(pixels: np.ndarray) -> np.ndarray:
    """The 3 x 3 pixels around each one, (images, height, width, channels, 3, 3)."""
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))


def convolved(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3 x 3 convolution of (images, height, width, channels) with (outputs, 9, channels)."""
    kernel = kernel.reshape(len(kernel), 3, 3, -1)
    return np.einsum("nhwcyx,oyxc->nhwo", windows_of(pixels), kernel)


def attended(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, dims: int = 70, scale: float = 2.0
) -> np.ndarray:
    """Of (tokens, 219) as three heads of 73 numbers, `dims` of them in queries and keys."""
    q, k, v = (one.reshape(-1, 3, 73).swapaxes(0, 1) for one in (q, k, v))
    scores = scale * q[..., :dims] @ k[..., :dims].swapaxes(1, 2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(0, 1)[None]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * np.vectorize(lambda one: (1 + math.erf(one / math.sqrt(2))) / 2)(x)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    given = {
        "x": rng.standard_normal((77, 219), dtype=np.float32),
        "weight": rng.standard_normal((43, 219), dtype=np.float32) / 15,
        "bias": rng.standard_normal(43, dtype=np.float32),
        "labels": rng.integers(0, 43, 77),
        "second": rng.standard_normal((6, 43), dtype=np.float32) / 7,
        "few": rng.integers(0, 6, 77),
        "thresholds": np.linspace(0, 0.2, 9, dtype=np.float32),
    }
    # bfloat16 numbers: those with nothing in the lower half.
    given["x_bits"] = (given["x"].view(np.uint32) >> 16).astype(np.uint16)
    given["weight_16"] = (given["weight"].view(np.uint32) & 0xFFFF0000).view(np.float32)
    given["qkv"] = rng.standard_normal((657, 219), dtype=np.float32) / 15
    given["thin"] = np.where(rng.random((43, 219)) < 0.2, given["weight"], np.float32(0))
    given["pixels"] = rng.standard_normal((3, 7, 6, 45), dtype=np.float32)
    given["kernel"] = rng.standard_normal((43, 9, 45), dtype=np.float32) / 20
    x, weight = given["x"].astype(np.float64), given["weight"].astype(np.float64)
    bias, labels = given["bias"].astype(np.float64), given["labels"]
    squares = ((x[:, None] - weight) ** 2).sum(-1)
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    logits = {
        "inverse_distance": 1 / np.sqrt(squares),
        "neg_sq_distance": -squares,
        "cosine": x @ weight.T / lengths,
    }
    wanted = {name: log_softmax_at(values, labels)[None] for name, values in logits.items()}
    second, bounds = given["second"].astype(np.float64), given["thresholds"].astype(np.float64)
    units = [x @ np.where(np.abs(weight) >= t, weight, 0).T + bias for t in bounds]
    wanted["linear"] = np.stack([log_softmax_at(logits, labels) for logits in units])
    x_16 = (given["x_bits"].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    w_16 = given["weight_16"].astype(np.float64)
    masked = [x_16 @ np.where(np.abs(w_16) >= t, w_16, 0).T + bias for t in bounds]
    wanted["bfloat16"] = np.stack([log_softmax_at(logits, labels) for logits in masked])
    for name, activate in (("relu", lambda h: np.maximum(h, 0)), ("gelu", gelu)):
        wanted[name] = np.stack(
            [
                log_softmax_at(
                    activate(h) @ np.where(np.abs(second) >= t, second, 0).T, given["few"]
                )
                for h, t in zip(units, bounds, strict=True)
            ]
        )
    drawn = philox.uniform(given["weight"].shape, 3).numpy()
    wanted["random"] = np.where(drawn >= 0.5, given["weight"], 0)
    wanted["magnitude"] = np.where(np.abs(given["weight"]) >= 0.5, given["weight"], 0)
    for name, activate in (
        ("None", lambda h: h),
        ("relu", lambda h: np.maximum(h, 0)),
        ("gelu", gelu),
    ):
        wanted[f"layer {name}"] = np.stack([activate(h) for h in units])
    wanted["nll"] = -wanted["linear"]
    whole = [log_softmax_all(h) for h in units]
    wanted["entropy"] = np.stack([-(np.exp(logs) * logs).sum(1) for logs in whole])
    wanted["whole nll"] = -log_softmax_at(x @ weight.T, labels)[None]
    random = wanted["random"].astype(np.float64)
    wanted["random nll"] = -log_softmax_at(x @ random.T, labels)[None]
    wanted["bfloat16 layer"] = (cut(given["x"]) @ cut(given["weight"]).T)[None]
    lists = (x @ given["thin"].astype(np.float64).T + bias)[None, None]
    wanted["lists"] = lists.clip(0)
    lists = (cut(given["x"]) @ cut(given["thin"]).T + bias)[None, None]
    wanted["bfloat16 lists"] = lists.clip(0)
    pixels, kernel = given["pixels"], given["kernel"]
    direct = convolved(pixels.astype(np.float64), kernel.astype(np.float64)) + bias
    wanted["winograd"] = direct.clip(0, 6)
    wanted["bfloat16 winograd"] = (convolved(cut(pixels), cut(kernel)) + bias).clip(0, 6)
    for name in ("", "bfloat16 "):
        for way in ("winograd int8", "direct int8"):
            wanted[name + way] = wanted[f"{name}winograd"]
    each = kernel[0].reshape(3, 3, -1).astype(np.float64)
    for name, given_pixels in (("depthwise", pixels), ("bfloat16 depthwise", cut(pixels))):
        windows = windows_of(given_pixels.astype(np.float64))
        wanted[name] = np.einsum("nhwcyx,yxc->nhwc", windows, each).clip(0, 6)
    narrow = (given["x"], given["weight"], given["second"])
    for name, parts in (("int8", narrow), ("bfloat16 int8", map(cut, narrow))):
        x_8, weight_8, second_8 = (part.astype(np.float64) for part in parts)
        wanted[name] = (x_8 @ weight_8.T + bias).clip(0) @ second_8.T
    for name, dress in (("int8 block", np.asarray), ("bfloat16 int8 block", cut)):
        tokens, qkv = (dress(given[one]).astype(np.float64) for one in ("x", "qkv"))
        thirds = np.split((tokens @ qkv.T).reshape(7, 11, -1), 3, axis=-1)
        mixed = [attended(*one, 73, 0.4)[0] for one in zip(*thirds, strict=True)]
        wanted[name] = 2 * (tokens.reshape(7, 11, 219) + np.reshape(mixed, (7, 11, 219)))
    for name, given_pixels in (("pooled", pixels), ("bfloat16 pooled", cut(pixels))):
        windows = np.lib.stride_tricks.sliding_window_view(given_pixels, (2, 3), (1, 2))
        wanted[name] = windows.max((-2, -1))
    thin = given["thin"].astype(np.float64)
    wanted["attention"] = attended(x, thin, x[:43])
    wanted["bfloat16 attention"] = attended(
        cut(given["x"]), cut(given["thin"]), cut(given["x"][:43])
    )
    path = tmp_path_factory.mktemp("isa") / "given.npz"
    np.savez(path, **given)
    return path, wanted


@pytest.mark.parametrize("isa", list(NEEDS))
def test_forced_isa_matches_float64(
    isa: str, case: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    if not processor_has(isa):
        pytest.skip(f"this processor has no {isa}")
    given, wanted = case
    done = run(isa, given, tmp_path / "out.npz")
    assert (done.returncode, done.stdout.strip()) == (0, isa), done.stderr
    ours = np.load(tmp_path / "out.npz")
    assert set(ours) == set(wanted)
    for name in wanted:
        found, short = ours[name], ours[name].dtype == np.uint16
        if short:
            found = (found.astype(np.uint32) << 16).view(np.float32)
        if "int8" in name:  # half a step of every number is lost
            off = np.linalg.norm(found - wanted[name]) / np.linalg.norm(wanted[name])
            assert off < 0.02
        elif short:
            # The weights of attention and the transforms of Winograd are rounded too.
            rough = "attention" in name or "winograd" in name
            size = 4e-3 * np.abs(wanted[name]).max() if rough else 1e-5
            np.testing.assert_allclose(found, wanted[name], rtol=4e-3, atol=size)
        else:
            exact = name in ("random", "magnitude")
            # −d² is about 230 here: a log p has the rounding of two such numbers.
            size = 0 if exact else 3e-4 if name == "neg_sq_distance" else 1e-5
            np.testing.assert_allclose(found, wanted[name], rtol=size / 30, atol=size)


def test_unknown_isa_is_a_clear_error() -> None:
    done = run("sse9")
    assert done.returncode != 0
    assert "LC_ENGINE_ISA=sse9: must be baseline, avx2, avx512 or avx512_bf16" in done.stderr


def test_best_isa_is_the_default() -> None:
    best = [isa for isa in NEEDS if processor_has(isa)][-1]
    assert run("").stdout.strip() == best


KERNELS = sorted(path.parent.name for path in (ROOT / "csrc").glob("*/kernel.cpp"))


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("g++") or not shutil.which("nm"),
    reason="needs g++ and nm on x86-64",
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_share_no_weak_symbol(kernel: str, tmp_path: Path) -> None:
    """A weak symbol compiled for AVX2 could become the copy that every processor runs."""
    compiled = tmp_path / "kernel.o"
    flags = ["-O2", "-std=c++17", "-march=x86-64-v3", "-Icsrc", "-DLC_ISA=avx2", "-DLC_HAVE_AVX512"]
    subprocess.run(
        ["g++", *flags, "-c", f"csrc/{kernel}/kernel.cpp", "-o", compiled], cwd=ROOT, check=True
    )
    listed = subprocess.run(
        ["nm", "-C", "--defined-only", compiled], capture_output=True, text=True, check=True
    ).stdout
    symbols = [line.split(maxsplit=2)[1:] for line in listed.splitlines()]
    assert not [name for kind, name in symbols if kind in "WVu"]
    outside = [name for kind, name in symbols if kind in "TDBRSC"]
    assert outside
    assert all(name.startswith("lc::avx2::") for name in outside)
