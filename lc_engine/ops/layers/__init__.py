"""Layers of fast networks on a CPU: plans in C++ that take tensors and hold packed weights."""
