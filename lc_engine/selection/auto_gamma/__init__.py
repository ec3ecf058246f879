"""gamma="auto": FlexRand's split chosen without a fine-tuning run."""
