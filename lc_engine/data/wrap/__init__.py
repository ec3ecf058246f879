"""Sources around other sources: some of their rows, their decoded rows, the next batch ahead."""
