"""The constants of gamma="auto" and strategy="auto", settled on held-out training rows.

python -m benchmarks.selection --cache DIR --held-out judges strategies and "auto" on such rows.
"""

CANDIDATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)  # γ
FINALISTS = 2  # candidates that get MORE_DRAWS
FIRST_DRAWS, MORE_DRAWS = 12, 24  # subsets of each; multiples of FOLDS
FOLDS = 4
# Of strategy="auto": partitions into FOLDS, and random subsets per fold.
PARTITIONS, DRAWS_PER_FOLD = 3, 3
MIN_TRIAL_ROWS = 40  # with fewer rows the rule decides

# (rows per group below which it holds, γ); above the last, random.
RULE = ((8.0, 0.1), (20.0, 0.2), (50.0, 0.35))

# Rates of one core, by which lc_engine/selection/cost.py foretells what a strategy takes:
# pytest benchmarks/bench_select.py -k features
VALUES_READ = 50e6  # features a second, gathered, converted and summed
GREEDY_RATE = 5e9  # operations a second of a matrix that is read from memory for each row kept
PRODUCT_RATE = 15e9  # operations a second of matrix products
K_MEANS_PASSES = 45  # over the rows that k-means reads, its other work included

# The size of the trial.
MAX_BUDGET = 2048  # rows of a subset
MIN_GROUPS = 10  # groups kept at least, if there are as many
MIN_SHARE = 0.1  # share of the data kept below which the best γ does not depend on it
MIN_ROWS = 4096  # rows, validation included, if there are as many
MAX_VALIDATION = 1024
WIDTH = 128  # principal components of the features
