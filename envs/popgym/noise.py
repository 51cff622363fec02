"""The noise of POPGym's noisy environments."""

import numpy as np
import numpy.typing as npt

from bistable_rl.envs import rng
from bistable_rl.envs.popgym.base import Observations


def add_noise(
    observations: Observations,
    sigma: float,
    limit: npt.NDArray[np.float32],
    keys: rng.Keys,
    t: npt.NDArray[np.int64],
) -> None:
    """Add normal noise to observations (n, 2), in place, and clip them to ±limit.

    Args:
        observations: (n, 2), the observations of n copies at their steps `t`.
        sigma: The standard deviation.
        limit: (2,), the largest absolute values of the observations.
        keys: (n,), the keys of the copies' episodes.
        t: (n,), the steps; different steps of an episode have independent noise.
    """
    observations += (sigma * rng.normal_pairs(keys, t)).astype(np.float32)
    np.clip(observations, -limit, limit, out=observations)
