"""Very large data: throughput, memory, kills and selection, each one command."""
