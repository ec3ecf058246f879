"""Constants that were measured on SmolLM2-135M-Instruct.

python -m benchmarks.language.tune measures them again.
"""

from __future__ import annotations

from typing import Final

# Most tokens of a batch, by the kind of device: larger batches were not faster.
TOKEN_BUDGET: Final = {"cpu": 1024, "gpu": 16384}
# Tokens that take as long as the fixed cost of a forward.
FORWARD_COST: Final = {"cpu": 64, "gpu": 2048}
# Least tokens that the head scores at a time: it reads all its weights, however few there are.
HEAD_TOKENS: Final = {"cpu": 1024, "gpu": 1}
# Lowest capacity of the default path: the perplexity of responses is 1.5 times that of the whole
# model there, and 20 times at 0.5.
LOWEST_CAPACITY: Final = 0.7
