"""Ahead-of-time compilation of every configuration, without a device."""
