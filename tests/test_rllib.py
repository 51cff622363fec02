"""Our network in RLlib: its numbers beside ours, and trainings on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from gymnasium import spaces
from noise_env import NUMBERS, TWO, noise
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.agent import make_policy
from bistable_rl.agents.api import read_experiment
from bistable_rl.agents.evaluation import evaluate
from bistable_rl.agents.obs import map_obs
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.run_spaces import SPACE_NAMES, Spaces, spaces_of_env
from bistable_rl.agents.spaces import to_json
from bistable_rl.agents.vec_envs import make_evaluation_env
from bistable_rl.errors import UserError
from bistable_rl.runs.config import build
from bistable_rl.runs.schema import Experiment

ray = pytest.importorskip("ray")
pytest.importorskip("ray.rllib.algorithms.ppo", exc_type=ImportError)

from ray.rllib.algorithms import Algorithm  # noqa: E402
from ray.rllib.core.columns import Columns  # noqa: E402
from ray.rllib.core.rl_module.rl_module import RLModuleSpec  # noqa: E402
from ray.rllib.utils.torch_utils import convert_to_torch_tensor  # noqa: E402
from two_nodes import blocks, two_nodes  # noqa: E402

from bistable_rl.rllib import MEMORY, STARTED, RecurrentRLModule, ppo_config, save  # noqa: E402

PAGE = Path(bistable_rl.__file__).resolve().parent / "CLUSTER.md"

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "shared": (NUMBERS, TWO, {"cell": "nbrc", "critic": "shared", "net_arch": []}),
    "two memories of two layers": (NUMBERS, spaces.MultiDiscrete([2, 3]), {"cell": "lstm", "num_layers": 2}),
    "learned start": (
        spaces.Dict({"a": NUMBERS, "b": spaces.Discrete(3)}),
        spaces.Box(-1, 1, (2,)),
        {"cell": "brc", "critic": "feedforward", "cell_kwargs": {"learn_initial_state": True}},
    ),
    "deviation from the memory": (NUMBERS, spaces.Box(-1, 1, (1,)), {"state_dependent_std": True}),
    "image": (spaces.Box(0, 255, (40, 36, 3), np.uint8), TWO, {"critic": "shared", "critic_gradient": False}),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def pair(request: pytest.FixtureRequest) -> tuple[RecurrentRLModule, RecurrentPolicy]:
    """Give a module of RLlib, and a policy of ours with the same weights."""
    seen, action, policy = CASES[request.param]
    env = BaseAlgorithm._wrap_env(noise(seen, action, 1), 0, False)
    found = spaces_of_env(env)
    experiment = build(Experiment, {**SMALL, "policy": {"hidden_size": 6, **policy}}, "a test")
    about = {
        "experiment": dataclasses.asdict(experiment),
        "spaces": {name: to_json(getattr(found, name)) for name in SPACE_NAMES},
        "folders": [],
        "max_seq_len": 9,
    }
    torch.manual_seed(1)
    spec = RLModuleSpec(RecurrentRLModule, observation_space=seen, action_space=action, model_config=about)
    module = spec.build()
    assert isinstance(module, RecurrentRLModule)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    ours = make_policy(experiment, Spaces(*found), torch.device("cpu"))
    ours.load_state_dict(module.policy.state_dict())
    return module, ours


def drawn(space: spaces.Space[Any], *shape: int) -> Any:
    """Return observations or actions (*shape, ...) of a space."""
    if isinstance(space, spaces.Dict):
        return {key: drawn(part, *shape) for key, part in space.items()}
    samples = [space.sample() for _ in range(int(np.prod(shape)))]
    return np.stack(samples).reshape(*shape, *(space.shape or ()))


def first_state(module: RecurrentRLModule, n: int) -> dict[str, Tensor]:
    """Return the state of n copies at the start of their episodes, as RLlib's connectors batch it."""
    return {key: part.unsqueeze(0).repeat(n, *[1] * part.dim()) for key, part in module.get_initial_state().items()}


def at(obs: Any, index: Any) -> Any:
    return {key: part[index] for key, part in obs.items()} if isinstance(obs, dict) else obs[index]


# --- the same numbers -------------------------------------------------------------------------------------------


@torch.no_grad()
def same_steps(module: RecurrentRLModule, ours: RecurrentPolicy, steps: int) -> None:
    """Check that three copies act the same and remember the same, while episodes start at random."""
    n, rng = 3, np.random.default_rng(0)
    obs, first = drawn(module.observation_space, steps, n), first_state(module, n)
    state, memory = first, ours.initial_state(n)
    kind = module.get_inference_action_dist_cls()
    for t in range(steps):
        starts = rng.random(n) < 0.25
        for copy in np.flatnonzero(starts):
            state = {key: torch.cat([part[:copy], first[key][:1], part[copy + 1 :]]) for key, part in state.items()}
        memory = ours.restart(memory, starts)
        batch = {Columns.OBS: convert_to_torch_tensor(at(obs, (t, slice(None), None))), Columns.STATE_IN: state}
        out = module.forward_inference(batch)
        seen, _ = ours.obs_to_tensor(at(obs, t))
        actions, memory = ours.step(seen, memory, deterministic=True)
        state = out[Columns.STATE_OUT]
        torch.testing.assert_close(state[MEMORY].movedim(0, 1), memory)
        theirs = kind.from_logits(out[Columns.ACTION_DIST_INPUTS]).to_deterministic().sample()[:, 0]
        torch.testing.assert_close(theirs, actions)
    assert float(memory.abs().max()) > 0.01


def test_actions_and_states_are_ours_step_for_step(pair: tuple[RecurrentRLModule, RecurrentPolicy]) -> None:
    same_steps(*pair, steps=12)


def test_padded_sequences_are_our_packed_ones_with_their_gradients(
    pair: tuple[RecurrentRLModule, RecurrentPolicy],
) -> None:
    module, ours = pair
    lengths, T = np.array([4, 7, 1]), 9
    by_length = [1, 0, 2]
    n = len(lengths)
    obs, actions = drawn(module.observation_space, n, T), drawn(module.action_space, n, T)
    padding = np.arange(T) >= lengths[:, None]
    for part in obs.values() if isinstance(obs, dict) else [obs]:
        part[padding] = 0
    memory = 0.5 * torch.randn(n, *module.get_initial_state()[MEMORY].shape)
    started = torch.tensor([[1.0], [0.0], [1.0]])
    batch = convert_to_torch_tensor(
        {
            Columns.OBS: obs,
            Columns.SEQ_LENS: lengths,
            Columns.STATE_IN: {MEMORY: memory * started.unsqueeze(1), STARTED: started},
        }
    )
    out = module.forward_train(batch)
    distribution = module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
    log_probs = distribution.logp(torch.from_numpy(actions))
    values = module.compute_values(batch, embeddings=out[Columns.EMBEDDINGS])
    torch.testing.assert_close(module.compute_values(batch), values)

    before = torch.where(started.unsqueeze(0) != 0, memory.movedim(0, 1), ours.initial_state(n))
    places = torch.arange(n * T).reshape(n, T)[by_length]
    index, batch_sizes, *_ = pack_padded_sequence(places, torch.from_numpy(lengths)[by_length], batch_first=True)
    rows = index // T, index % T
    seen, _ = ours.obs_to_tensor(at(obs, (rows[0].numpy(), rows[1].numpy())))
    theirs = ours.evaluate_packed(seen, torch.from_numpy(actions)[rows], before[:, by_length], batch_sizes)
    for mine, other in zip((values, log_probs, distribution.entropy()), theirs, strict=True):
        torch.testing.assert_close(mine[rows], other)
    for row, length in enumerate(lengths):
        alone, _ = ours.obs_to_tensor(at(obs, (row, slice(0, length))))
        steps = map_obs(lambda part: part.unsqueeze(1), alone)
        last = ours.advance(steps, before[:, row : row + 1], torch.zeros(length, 1))
        torch.testing.assert_close(out[Columns.STATE_OUT][MEMORY][row], last[:, 0])

    (values[rows].sum() + log_probs[rows].sum()).backward()
    (theirs[0].sum() + theirs[1].sum()).backward()
    for (name, parameter), other in zip(module.policy.named_parameters(), ours.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, other.grad, msg=name)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "overrides", "sentence"),
    [
        ("supervised/copy_first", {}, "is not a config for `bistable-rl train`"),
        ("nowhere.yaml", {}, "there is no file 'nowhere.yaml'"),
        (
            "rl/copy_first",
            {"policy.cell_kwargs": {"x": 1}},
            "^policy: cell 'nbrc': unknown option 'x'; the choices are",
        ),
        ("rl/copy_first", {"algorithm.popart": True}, "^algorithm.popart must be false, not true: RLlib's PPO"),
        ("rl/copy_first", {"algorithm.clip_range": [0.2, 0.1]}, "^algorithm.clip_range must be one number for RLlib"),
        ("rl/copy_first", {"env.num_envs": 17}, "^env.num_envs 17 must be a multiple of env_runners, 2.$"),
        ("rl/t_maze_masked", {"algorithm.popart": False}, "^env: it has action masks, which RLlib does not take.$"),
        (
            "rl/copy_first",
            {"env.id": "rllib_env:Binary-v0", "env.kwargs": {}},
            r"^env: its action space is MultiBinary\(2\); RLlib takes",
        ),
    ],
)
def test_what_rllib_cannot_train_is_one_sentence(source: str, overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ppo_config(source, overrides, env_runners=2)


def test_without_rllib_the_install_line_is_named_and_nothing_else_needs_it() -> None:
    code = (
        "import sys; sys.modules['ray'] = None; from bistable_rl.cli import main; main(['--help'])\n"
        "try:\n    import bistable_rl.rllib\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == (
        "bistable_rl.rllib needs RLlib: install it with pip install 'bistable-rl[rllib]'."
    )


# --- in RLlib ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Give the address of a cluster of two nodes, to which this process is connected."""
    with two_nodes() as address:
        ray.init(address, log_to_driver=False)
        yield address


STEPS = ("env_runners", "num_env_steps_sampled_lifetime")
SETTINGS = {"n_steps": 20, "batch_size": 10, "n_epochs": 2, "popart": False, "learning_rate": 1e-12}


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [
        {"id": "bistable_rl/CopyFirst-v0", "kwargs": {"length": 7}},
        {"id": "bistable_rl/CopyFirst-v0", "kwargs": {"length": 7}, "wrappers": [{"name": "previous_action_reward"}]},
        {"id": "Pendulum-v1", "kwargs": {"max_episode_steps": 33}, "num_envs": 1},
        {"id": "rllib_env:Nested-v0"},
        {"id": "rllib_env:Image-v0"},
    ],
    ids=lambda env: env["id"] + "+" * len(env.get("wrappers", [])),
)
def test_what_was_acted_is_what_is_learned_from_and_saved(env: dict[str, Any], address: str, tmp_path: Path) -> None:
    policy = {"cell": "mixed", "hidden_size": 8, "ortho_init": False}
    experiment: dict[str, Any] = {
        "name": "short",
        "env": {"num_envs": 4, **env},
        "policy": policy,
        "algorithm": SETTINGS,
    }
    config = ppo_config(experiment).training(use_kl_loss=True)
    algorithm = config.build_algo()
    try:
        for _ in range(3):  # episodes go on from one rollout to the next
            learned = algorithm.train()["learners"]["default_policy"]
            assert abs(learned["mean_kl_loss"]) < 1e-6
        save(algorithm, tmp_path / "agent.zip")
        weights, steps = algorithm.learner_group.get_weights()["default_policy"], algorithm.metrics.peek(STEPS)
    finally:
        algorithm.stop()
    model = RecurrentPPO.load(tmp_path / "agent")
    assert model.num_timesteps == steps >= 3 * 20 * experiment["env"]["num_envs"]
    for name, tensor in model.policy.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[f"policy.{name}"])
    played = make_evaluation_env(build(Experiment, experiment, "a test").env, 2, 0)
    assert len(evaluate(model, played, 2).returns) == 2


@pytest.mark.slow
def test_the_page_s_training_on_two_nodes_learns_copy_first(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runners are on both nodes, and the archive acts as RLlib's module does."""
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    stop = Algorithm.stop

    def look_and_stop(algorithm: Algorithm) -> None:
        group = algorithm.env_runner_group
        seen["nodes"] = group.foreach_env_runner(
            lambda _: ray.get_runtime_context().get_node_id(), local_env_runner=False
        )
        seen["module"] = algorithm.get_module()
        stop(algorithm)

    monkeypatch.setattr(Algorithm, "stop", look_and_stop)
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: None)  # the fixture has
    train, use = blocks(PAGE, "One training on several machines", "python")
    exec(train, {})
    assert len(set(seen["nodes"])) == 2
    agent = RecurrentPPO.load("copy_first.zip")
    same_steps(seen["module"], agent.policy, steps=60)
    env = make_evaluation_env(read_experiment("rl/copy_first").env, 200, seed=7)
    successes = evaluate(agent, env, 200).successes
    assert successes is not None
    assert successes.mean() >= 0.95
    exec(use, {})
