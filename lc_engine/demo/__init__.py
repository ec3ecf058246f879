"""`lc-engine demo`: the whole job on a real model and real images, fetched by pip alone."""

from lc_engine.demo.job import run
from lc_engine.demo.settings import Settings
from lc_engine.demo.summary import Outcome, as_text

__all__ = ["Outcome", "Settings", "as_text", "run"]
