"""Conversations with images, for models that read both."""
