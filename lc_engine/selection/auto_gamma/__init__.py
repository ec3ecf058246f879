"""gamma="auto": FlexRand's split chosen without a fine-tuning run.

With features: for each candidate γ, draw subsets as FlexRand would, fit a closed-form classifier
(ridge regression on the features) to each, and compare its accuracy on a validation fold of the
training rows with that of random subsets of the same size and fold. Rows, width and subsets are
capped, so the cost does not grow with the data set. Without features: a rule on the budget per
group, learned on other data sets than those it was tested on (docs/selection.md).

Both return γ = 0, the random draw per group, if no split is shown to help.
"""
