"""Compile every configuration for every target, without a device.

A kernel that spills, misses the tensor cores or takes more shared memory than its target has is
found on any machine. Nothing here runs when scoring.
"""
