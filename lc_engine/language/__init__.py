"""Instruction data: conversations in, and how well a causal language model expects the answers."""
