"""What callbacks written for SB3 read of our algorithm, beside what they read of sb3-contrib's."""

from copy import copy
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import torch
from gymnasium import spaces
from noise_env import Noise
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps
from stable_baselines3.common.vec_env import DummyVecEnv

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.buffer import RolloutBuffer

T, N = 8, 3
STEP = ("obs_tensor", "actions", "clipped_actions", "values", "log_probs", "new_obs", "rewards", "dones", "infos")
ROLLOUT = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
ACTIONS = [spaces.Discrete(3), spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3])]  # sb3's fails with MultiBinary
NUMBERS = spaces.Box(-1, 1, (3,))


class Reader(BaseCallback):
    """Keeps what a step and a rollout show."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.rollout: dict[str, Any] = {}

    def _on_step(self) -> bool:
        self.steps.append({name: self.locals[name] for name in STEP} | {"n_steps": self.locals["n_steps"]})
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        buffer = model.rollout_buffer
        assert buffer.size() == buffer.buffer_size == T
        self.rollout = {name: copy(getattr(buffer, name)) for name in ROLLOUT}  # sb3's are flattened later


def form(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: form(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return type(value), tuple(value.shape), value.dtype
    return type(value)


def trained(actions: spaces.Space[Any], observations: spaces.Space[Any] = NUMBERS) -> tuple[RecurrentPPO, Reader]:
    env = DummyVecEnv([lambda: Noise(observations, actions)] * N)
    reader = Reader()
    model = RecurrentPPO("RecurrentPolicy", env, n_steps=T, batch_size=T, n_epochs=1, device="cpu")
    return model.learn(T * N, reader), reader


@pytest.mark.parametrize("actions", ACTIONS, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("observations", [NUMBERS, spaces.Dict({"a": NUMBERS, "b": spaces.Discrete(2)})], ids=["", "D"])
def test_steps_and_rollouts_have_the_names_shapes_and_types_of_sb3s(
    actions: spaces.Space[Any], observations: spaces.Space[Any]
) -> None:
    _, ours = trained(actions, observations)
    env, theirs = DummyVecEnv([lambda: Noise(observations, actions)] * N), Reader()
    policy = "MultiInputLstmPolicy" if isinstance(observations, spaces.Dict) else "MlpLstmPolicy"
    sb3_contrib.RecurrentPPO(policy, env, n_steps=T, batch_size=T, n_epochs=1, device="cpu").learn(T * N, theirs)
    assert [step["n_steps"] for step in ours.steps] == [step["n_steps"] for step in theirs.steps] == list(range(T))
    assert form(ours.steps[0]) == form(theirs.steps[0])
    assert form(ours.rollout) == form(theirs.rollout)


def test_what_a_step_shows_is_what_the_rollout_keeps() -> None:
    model, reader = trained(spaces.Box(-1, 1, (2,)))
    for name in ("actions", "rewards", "values", "log_probs"):
        steps = np.stack([np.asarray(step[name]).reshape(N, -1) for step in reader.steps])
        np.testing.assert_allclose(steps, reader.rollout[name].reshape(T, N, -1), rtol=1e-5, atol=1e-6)
    clipped = np.stack([step["clipped_actions"] for step in reader.steps])
    np.testing.assert_array_equal(clipped, np.clip(reader.rollout["actions"], -1, 1))
    assert (clipped != reader.rollout["actions"]).any()
    assert np.mean(reader.rollout["rewards"]) == pytest.approx(float(model.rollout.rewards.mean()))


def test_the_arrays_share_the_memory_of_the_rollout_and_leave_out_what_lies_before_it() -> None:
    env = DummyVecEnv([lambda: Noise(NUMBERS, spaces.Discrete(2))] * N)
    model = RecurrentPPO("RecurrentPolicy", env, n_steps=T, batch_size=T, burn_in=3, bptt_length=4, device="cpu")
    model.learn(2 * T * N)
    assert isinstance(model.rollout, RolloutBuffer)
    assert np.shares_memory(model.rollout_buffer.rewards, model.rollout.rewards.numpy())
    assert model.rollout.episode_starts.shape == (T + 3, N)
    np.testing.assert_array_equal(model.rollout_buffer.episode_starts, model.rollout.episode_starts[3:])


def test_callbacks_within_callbacks_read_the_same_and_nothing_is_computed_unless_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    computed: list[int] = []

    class Values(BaseCallback):
        def _on_step(self) -> bool:
            assert "values" in self.locals
            assert self.locals.get("nothing", 3) == 3
            with pytest.raises(KeyError):
                self.locals["nothing"]
            seen.append(self.locals.get("values"))
            return True

    def function(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(variables["log_probs"])
        return True

    class Nothing(BaseCallback):
        def _on_step(self) -> bool:
            return self.locals["n_steps"] < T

    compute = RecurrentPPO._evaluate_step

    def counted(self: RecurrentPPO, variables: Any) -> Any:
        computed.append(1)
        return compute(self, variables)

    monkeypatch.setattr(RecurrentPPO, "_evaluate_step", counted)
    env = DummyVecEnv([lambda: Noise(NUMBERS, spaces.Discrete(2))] * N)
    model = RecurrentPPO("RecurrentPolicy", env, n_steps=T, batch_size=T, device="cpu")
    model.learn(T * N, Nothing())
    assert not computed
    model.learn(T * N, CallbackList([Nothing(), EveryNTimesteps(N, Values())]))
    model.learn(T * N, function)
    assert [value.shape for value in seen] == [(N, 1)] * T + [(N,)] * T
    assert len(computed) == 2 * T


def test_before_the_first_step_a_callback_finds_no_values() -> None:
    class First(BaseCallback):
        def _on_rollout_start(self) -> None:
            assert "values" not in self.locals

        def _on_step(self) -> bool:
            return True

    env = DummyVecEnv([lambda: Noise(NUMBERS, spaces.Discrete(2))] * N)
    RecurrentPPO("RecurrentPolicy", env, n_steps=T, batch_size=T, device="cpu").learn(T * N, First())
