"""Environments of odd spaces, which RLlib's workers import by name."""

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from noise_env import NUMBERS, TWO

IMAGE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
SPACES: dict[str, tuple[spaces.Space, spaces.Space]] = {
    "Binary-v0": (NUMBERS, spaces.MultiBinary(2)),
    "Nested-v0": (spaces.Tuple([NUMBERS, spaces.Discrete(3)]), spaces.MultiDiscrete([2, 3])),
    "Image-v0": (spaces.Dict({"image": IMAGE, "place": spaces.Discrete(4)}), TWO),
}

for name, (observation_space, action_space) in SPACES.items():
    kwargs = {"observation_space": observation_space, "action_space": action_space}
    gymnasium.register(name, "noise_env:Noise", kwargs=kwargs)


class Slow(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Waits 5 ms at every step, as for a simulator."""

    def step(self, action: Any) -> Any:
        time.sleep(0.005)
        return self.env.step(action)
