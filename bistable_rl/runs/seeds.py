"""Seeds: one for each purpose, derived from the seed of an experiment."""

import numpy as np

TRAINING, EVALUATION, FINAL_EVALUATION, WATCHING, WARM_UP, ANALYSIS = range(6)
"""The purposes of derived seeds."""


def derived_seed(seed: int, *purpose: int) -> int:
    """Return a separate seed for each purpose, so that neither purposes nor neighbouring seeds share random streams."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1)[0] >> 1)
