"""Large data: throughput, memory, killed runs and selection, one command each."""
