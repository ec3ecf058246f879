"""`lc-engine bench`: the engine and the ways that it replaces, on the same rows, in one run."""

from lc_engine.bench.measure import Outcome, measure
from lc_engine.bench.parity import DisagreementError
from lc_engine.bench.report import as_text

__all__ = ["DisagreementError", "Outcome", "as_text", "measure"]
