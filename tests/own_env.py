"""An environment, wrappers, a callback and a logger of a user's own, as a config names them: `own_env:Recall-v0`."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor


class Recall(gymnasium.Env[Any, Any]):
    """Shows 1 or -1, then zeros for `delay` steps; the last action says which it was. `tall` observes the delay."""

    def __init__(self, delay: int = 3, *, tall: bool = False, endless: bool = False) -> None:
        if delay < 1:
            raise ValueError(f"delay must be at least 1, got {delay}")
        self.delay, self.endless = delay, endless
        self.observation_space = Box(-1, 1, (delay if tall else 1,), np.float32)
        self.action_space = Discrete(2)

    @property
    def normalized_score(self) -> Any:
        raise RuntimeError("is not ours")

    def _see(self, value: float) -> np.ndarray:
        return np.full(self.observation_space.shape, value, np.float32)  # type: ignore[arg-type]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(2))
        return self._see(2 * self.cue - 1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        if self.endless == "exit":
            sys.exit(5)
        over = self.t == self.delay and not self.endless
        right = int(action) == self.cue
        return self._see(0), float(over and right), over, False, {"is_success": right} if over else {}


class Shift(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Adds a number to every observation, and a dimension that holds it."""

    def __init__(self, env: gymnasium.Env[Any, Any], by: float = 1.0) -> None:
        super().__init__(env)
        self.by = by
        self.observation_space = Box(-9, 9, (2,), np.float32)

    def observation(self, observation: Any) -> Any:
        return np.array([observation[0] + self.by, self.by], np.float32)


class ShiftedRecall(Shift):
    """The environment in its wrapper, as one class."""

    def __init__(self, delay: int = 3) -> None:
        super().__init__(Recall(delay))


class Count(BaseCallback):
    """Logs its calls, and ends the training after some of them."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most = most

    def _on_step(self) -> bool:
        self.logger.record("own/calls", self.n_calls)
        self.logger.record("own/text", "a, b")
        return self.n_calls < self.most


class Fails(BaseCallback):
    def _on_step(self) -> bool:
        raise ZeroDivisionError("as it is written")


class Exits(BaseCallback):
    """Exits when it is made, when it is called, or within the environment that it steps."""

    def __init__(self, when: str = "called") -> None:
        super().__init__()
        self.when = when
        if when == "made":
            sys.exit(4)

    def _on_step(self) -> bool:
        if self.when == "in the environment":
            self.training_env.envs[0].unwrapped.endless = "exit"  # type: ignore[attr-defined]
        else:
            sys.exit(4)
        return True


class ExitsLogger(KVWriter):
    def __init__(self, folder: str) -> None:
        pass

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        sys.exit()

    def close(self) -> None:
        pass


class ExitsNetwork(BaseFeaturesExtractor):
    """Exits at its second call."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 1)
        self.calls = 0

    def forward(self, seen: Any) -> Any:
        self.calls += 1
        return seen if self.calls == 1 else sys.exit("enough")


class Lines(KVWriter):
    """Writes the steps of every row to a file of the run folder."""

    def __init__(self, folder: str, name: str = "lines.txt") -> None:
        self.file = (Path(folder) / name).open("a")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        print(step, key_values["own/calls"], file=self.file)

    def close(self) -> None:
        self.file.close()


gymnasium.register("Recall-v0", "own_env:Recall")
gymnasium.register("Recall5-v0", "own_env:Recall", kwargs={"delay": 5})
gymnasium.register("RecallAny-v0", lambda **kwargs: Recall(**kwargs))
gymnasium.register("RecallLambda-v0", lambda delay=3: Recall(delay))  # type: ignore[arg-type]
gymnasium.register("RecallShifted-v0", "own_env:ShiftedRecall")
gymnasium.register("RecallLimited-v0", "own_env:Recall", max_episode_steps=9)
