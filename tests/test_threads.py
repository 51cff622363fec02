"""Little work on one thread, more on as many as torch has."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from bistable_rl.agents import threads
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.speed.recall import Recall


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def make_policy(space: spaces.Space, hidden_size: int = 128) -> RecurrentPolicy:
    kwargs: dict[str, Any] = {"cell": "nbrc", "hidden_size": hidden_size}
    return RecurrentPolicy(space, spaces.Discrete(4), lambda _: 1e-3, **kwargs)


def test_threads_come_back_after_the_block_and_after_an_error() -> None:
    with threads.one_if(False):
        assert torch.get_num_threads() == 2
    with threads.one_if(True):
        assert torch.get_num_threads() == 1
        with threads.one_if(True):
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2

    def fail() -> None:
        with threads.one_if(True):
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail()
    assert torch.get_num_threads() == 2


def test_what_is_small_grows_with_rows_and_weights_and_never_holds_convolutions() -> None:
    policy = make_policy(spaces.Box(-1, 1, (5,)))
    weights = sum(parameter.numel() for parameter in policy.parameters())
    most = int(threads.SMALL_WORK / (2 * weights))
    assert threads.is_small(policy, most)
    assert not threads.is_small(policy, most + 1)
    assert not threads.is_small(make_policy(spaces.Box(-1, 1, (5,)), 512), most // 10)
    assert not threads.is_small(make_policy(spaces.Box(0, 255, (3, 40, 40), np.uint8)), 1)


@pytest.mark.parametrize(("hidden_size", "expected"), [(16, 1), (512, 2)])
def test_small_updates_run_on_one_thread_and_environments_keep_theirs(
    hidden_size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"loss": set(), "step": set(), "env": set()}

    def noting(owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            seen[part].add(torch.get_num_threads())
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, run)

    noting(RecurrentPPO, "loss", "loss")
    noting(RecurrentPolicy, "step", "step")
    noting(BatchedVecEnv, "step_wait", "env")
    kwargs = {"cell": "nbrc", "hidden_size": hidden_size, "critic": "shared"}
    model = RecurrentPPO(
        "RecurrentPolicy", BatchedVecEnv(Recall(4)), n_steps=64, batch_size=128, n_epochs=1, policy_kwargs=kwargs
    )
    model.learn(256)
    assert seen == {"loss": {expected}, "step": {1}, "env": {2}}
    assert torch.get_num_threads() == 2
