"""Compile every configuration; with --write, renew the committed table."""

from __future__ import annotations

from lc_engine.kernels.aot.cases import main

if __name__ == "__main__":
    main()
