"""Conversations as text: what a chat template writes, and where the answers stand in it."""
