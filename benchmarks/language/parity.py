"""How exact float32 is: engine and plain loop, in float32 and in float64, per dropout rate.

    python -m benchmarks.language.parity [--rows 8]

Injected dropout scales what is left of each branch by 1 / (1 - rate), so at high rates the rounding
of float32 grows through the layers. In float64 the two ways must agree to many digits; in float32
neither can be nearer to the other than both are to that.
"""

from __future__ import annotations

import argparse

import numpy as np

import lc_engine as lc
from benchmarks.language.plain_loop import PlainLoop
from lc_engine.bench.language_data import conversations, smollm2
from lc_engine.language.model import LanguageModelSpec
from lc_engine.language.scorer import CausalLMScorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    asked = parser.parse_args()
    rows, path = conversations(), lc.LearningPath.linear(9, 0.1, 0.9)
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[: asked.rows])
    found = {}
    for dtype in ("float32", "float64"):
        model, tokenizer = LanguageModelSpec(str(smollm2()), "float32").load()
        model = model.double() if dtype == "float64" else model
        scorer = CausalLMScorer(
            model, tokenizer, path=path, masking=lc.Masking("dropout"), whole_model=False
        )
        source = scorer.transform.open_source([rows[i] for i in chosen])
        batch = next(source.batches(asked.rows))
        log_probs = scorer.score_rows(batch).scores.log_probs
        assert log_probs is not None
        found["engine", dtype] = -log_probs.double().numpy()
        found["loop", dtype] = PlainLoop(model, path, "dropout").nll(batch.inputs).numpy()

    def apart(one: tuple[str, str], other: tuple[str, str], k: int) -> str:
        return f"{np.abs(found[one][k] - found[other][k]).max():.1e}"

    exact = ("loop", "float64")
    print("rate  NLL  float32: engine-loop  engine-exact  loop-exact  float64: engine-loop")
    for k, capacity in enumerate(path.capacities):
        print(
            f"{1 - capacity:.1f}  {found[exact][k].mean():.1f}",
            apart(("engine", "float32"), ("loop", "float32"), k),
            apart(("engine", "float32"), exact, k),
            apart(("loop", "float32"), exact, k),
            apart(("engine", "float64"), exact, k),
            sep="  ",
        )


if __name__ == "__main__":
    main()
