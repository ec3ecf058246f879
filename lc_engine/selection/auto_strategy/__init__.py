"""strategy="auto": the strategy chosen without a fine-tuning run, by the trial of gamma="auto"."""
