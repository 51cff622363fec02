"""Actions that an environment forbids are never taken, and count in no probability, entropy or gradient."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from masked_env import SIZES, SPACES, Info, Method, Rules, copies_of
from noise_env import Noise
from sb3_contrib.common.maskable.distributions import make_masked_proba_distribution
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

import bistable_rl
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.action_masks import as_gymnasium, checked
from bistable_rl.agents.adversary import attack
from bistable_rl.agents.distributions import make_distribution, masked
from bistable_rl.agents.evaluation import evaluate
from bistable_rl.agents.play import watch
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.training import train
from bistable_rl.agents.vec_envs import BatchedVecEnv, make_vec_env
from bistable_rl.cli import main
from bistable_rl.envs import make_batched_env, make_env
from bistable_rl.envs.t_maze import DOWN, LEFT, RIGHT, UP
from bistable_rl.envs.t_maze_masked import MaskedTMazeVectorEnv
from bistable_rl.errors import RunFailedError
from bistable_rl.runs.schema import EnvConfig, Experiment, load_config

MASKED = "bistable_rl/TMazeMasked-v0"
NETWORK = {"cell": "nbrc", "hidden_size": 6, "critic": "shared", "net_arch": []}


def draw_masks(kind: str, n: int) -> Tensor:
    """Return masks that allow at least one value of each action, and two at times."""
    parts = []
    for size in SIZES[kind]:
        part = torch.rand(n, size) < 0.4
        part[torch.arange(n), torch.randint(size, (n,))] = True
        parts.append(part)
    return torch.cat(parts, 1)


def allowed(kind: str, masks: Tensor, actions: Tensor) -> Tensor:
    """Return whether each action (n, ...) is allowed by its mask (n, A), from the definition."""
    n = len(masks)
    begins = torch.tensor([0, *SIZES[kind]]).cumsum(0)[:-1]
    return masks.gather(1, actions.reshape(n, -1).long() + begins).all(1)


def make_model(env: Any, **arguments: Any) -> RecurrentPPO:
    settings: dict[str, Any] = {"n_steps": 24, "batch_size": 24, "n_epochs": 2, "seed": 0, "ent_coef": 0.1}
    return RecurrentPPO("MlpRecurrentPolicy", env, policy_kwargs=NETWORK, **{**settings, **arguments})


# --- distributions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("kind", list(SPACES))
def test_probabilities_entropies_gradients_and_modes_are_maskable_ppos(kind: str, scale: float) -> None:
    torch.manual_seed(0)
    n, space, masks = 200, SPACES[kind], draw_masks(kind, 200)
    ours, theirs = make_distribution(space), make_masked_proba_distribution(space)
    width = 3 if kind == "multi-binary" else sum(SIZES[kind])
    start = scale * torch.randn(n, width, dtype=torch.double)
    found = []
    distribution: Any
    for distribution in (ours, theirs):
        logits = start.clone().requires_grad_()
        # theirs has two logits for a bit; one of them, relative to the other, is ours
        read = torch.stack([0 * logits, logits], -1).flatten(1) if width == 3 and distribution is theirs else logits
        distribution.proba_distribution(read)
        if distribution is theirs:
            distribution.apply_masking(masks.numpy())
        else:
            assert masked(ours, masks) is ours
        mode = distribution.mode().reshape(n, -1).double()
        log_prob, entropy = distribution.log_prob(mode.squeeze(-1)), distribution.entropy()
        assert entropy is not None
        (log_prob.sum() + 0.3 * entropy.sum()).backward()
        found.append((mode, log_prob, entropy, logits.grad))
    for one, other in zip(*found, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other)
    assert allowed(kind, masks, found[0][0]).all()


@pytest.mark.parametrize("kind", list(SPACES))
def test_a_forbidden_action_is_never_drawn_whatever_its_logit(kind: str) -> None:
    torch.manual_seed(0)
    masks = draw_masks(kind, 3000)
    distribution = make_distribution(SPACES[kind])
    width = 3 if kind == "multi-binary" else sum(SIZES[kind])
    logits = (1e9 * torch.randn(len(masks), width)).requires_grad_()
    masked(distribution.proba_distribution(logits), masks)
    for deterministic in (False, True):
        actions = distribution.get_actions(deterministic)
        assert allowed(kind, masks, actions).all()
        entropy = distribution.entropy()
        assert entropy is not None
        total = distribution.log_prob(actions.float()).sum() + entropy.sum()
        (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_allowed_actions_keep_the_ratios_of_their_probabilities() -> None:
    torch.manual_seed(0)
    distribution = make_distribution(spaces.Discrete(4))
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(30_000, 4)
    masked(distribution.proba_distribution(logits), torch.tensor([True, False, True, True]).expand(30_000, 4))
    share = torch.bincount(distribution.sample(), minlength=4) / 30_000
    torch.testing.assert_close(share, torch.tensor([4.0, 0.0, 2.0, 1.0]) / 7, atol=0.01, rtol=0)


# --- their form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "masks"),
    [
        ("discrete", np.array([[1, 0, 1, 1]], np.int8)),
        ("discrete", [True, False, True, True]),
        ("multi-discrete", [(np.array([1, 0, 1]), np.array([1, 1]), np.array([0, 0, 0, 1]))]),
        ("multi-discrete", np.array([1.0, 0, 1, 1, 1, 0, 0, 0, 1])),
        ("multi-binary", np.array([[[1, 0], [1, 1], [0, 1]]])),
    ],
)
def test_masks_come_in_any_form_that_holds_their_entries_in_order(kind: str, masks: Any) -> None:
    flat = {"discrete": [1, 0, 1, 1], "multi-discrete": [1, 0, 1, 1, 1, 0, 0, 0, 1], "multi-binary": [1, 0, 1, 1, 0, 1]}
    read = checked(masks, SPACES[kind], 1)
    assert read.dtype == np.bool_
    assert read.astype(int).tolist() == [flat[kind]]


@pytest.mark.parametrize("kind", list(SPACES))
def test_gymnasiums_sample_takes_them(kind: str) -> None:
    space, masks = SPACES[kind], draw_masks(kind, 200)
    space.seed(0)
    drawn = np.stack([np.atleast_1d(space.sample(mask=as_gymnasium(mask, space))) for mask in masks.numpy()])
    assert allowed(kind, masks, torch.from_numpy(drawn)).all()
    assert len(np.unique(drawn, axis=0)) > 3


@pytest.mark.parametrize(
    ("kind", "masks", "sentence"),
    [
        ("discrete", [[1, 0, 1]] * 2, r"copy 0 has 3 entries, but Discrete\(4\) needs 4, one for each action"),
        (
            "multi-discrete",
            [[1] * 8] * 2,
            r"has 8 entries, but MultiDiscrete\(\[3 2 4\]\) needs 9, one for each value of",
        ),
        ("multi-binary", [[1] * 3] * 2, r"has 3 entries, but MultiBinary\(3\) needs 6, two for each bit, for 0 and"),
        ("discrete", [[1] * 4] * 3, "there are 3 action masks for 2 copies"),
        ("discrete", [[1] * 4, [0] * 4], "copy 1 allows no action: at least one entry must be true"),
        ("multi-discrete", [[1] * 9, [1, 1, 1, 0, 0, 1, 1, 1, 1]], "copy 1 allows no value of action 1: at least"),
        ("multi-binary", [[1, 1, 1, 1, 0, 0], [1] * 6], "copy 0 allows no value of action 2"),
        ("discrete", [[0.5, 1, 1, 1]] * 2, r"must hold only true and false, or 1 and 0, not \[0.5, 1.0, 1.0, 1.0\]"),
        ("discrete", [[np.nan, 1, 1, 1]] * 2, "must hold only true and false"),
        ("discrete", True, "action masks must be an array for each copy, not True"),
        ("discrete", [["a", "b", "c", "d"]] * 2, "must hold only true and false"),
    ],
)
def test_a_mask_that_does_not_fit_gets_one_sentence(kind: str, masks: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        checked(masks, SPACES[kind], 2)


def test_continuous_actions_have_no_masks() -> None:
    with pytest.raises(ValueError, match=r"action masks are for Discrete, MultiDiscrete and MultiBinary actions, not"):
        checked([[True]], spaces.Box(-1, 1, (1,)), 1)


# --- rollouts and updates ------------------------------------------------------------------------------------


class Watch(BaseCallback):
    """Keeps the log-probabilities of the steps, and checks what a callback of MaskablePPO reads."""

    def __init__(self) -> None:
        super().__init__()
        self.log_probs: list[Tensor] = []
        self.seen = 0

    def _on_step(self) -> bool:
        found = self.locals
        self.log_probs.append(found["log_probs"])
        self.seen += int(np.array_equal(found["obs_tensor"].numpy() > 0.5, found["action_masks"]))
        return True


WAYS = ["single", "dummy", "normalize", "subproc", "sync", "async", "batch"]


@pytest.mark.parametrize(
    ("how", "make", "kind"),
    [
        *(("dummy", make, kind) for make in (Method, Info) for kind in SPACES),
        *((how, Method, "discrete") for how in WAYS if how != "dummy"),
        *((how, Info, "multi-binary") for how in WAYS if how not in ("dummy", "batch")),
        ("sync", Method, "multi-discrete"),
        ("ActionMasker", Rules, "multi-discrete"),
    ],
)
def test_each_step_is_taken_under_the_mask_of_its_own_observation(how: str, make: type[Rules], kind: str) -> None:
    """The environment refuses a forbidden action, and shows its mask; the last one of an episode allows nothing."""
    model, watch = make_model(copies_of(how, make, kind)), Watch()
    model.learn(2 * 24 * model.n_envs, callback=watch)
    rollout, masks = model.rollout, model.rollout.action_masks
    assert masks is not None
    assert isinstance(rollout.obs, Tensor)
    assert torch.equal(rollout.obs > 0.5, masks)
    assert 0.3 < masks.float().mean() < 0.9
    assert rollout.dones.sum() >= model.n_envs
    assert watch.seen == 48
    assert model.rollout_buffer.action_masks is not None
    assert np.array_equal(model.rollout_buffer.action_masks, masks.float().numpy())
    torch.testing.assert_close(torch.stack(watch.log_probs[24:]), rollout.log_probs)
    evaluated = evaluate(model.policy, model.get_env(), 6, deterministic=False)  # type: ignore[arg-type]
    assert len(evaluated.returns) == 6
    model.get_env().close()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "arguments", [{}, {"refresh_states": True, "bptt_length": 5}, {"burn_in": 3, "bptt_length": 6}]
)
@pytest.mark.parametrize("kind", list(SPACES))
def test_the_first_pass_of_an_update_changes_no_probability(kind: str, arguments: dict[str, Any]) -> None:
    model = make_model(copies_of("dummy", Method, kind), **arguments)
    ratios = []
    inner = model.loss

    def loss(minibatch: Any) -> Any:
        result, metrics = inner(minibatch)
        ratios.append(float(metrics["train/approx_kl"].abs() + metrics["train/clip_fraction"]))
        assert torch.isfinite(result)
        assert metrics["train/entropy_loss"] < 0
        return result, metrics

    model.loss = loss  # type: ignore[method-assign]
    model.learn(2 * 72)
    per_update = len(ratios) // 2
    assert ratios[0] == pytest.approx(0, abs=1e-6)
    assert ratios[per_update] == pytest.approx(0, abs=1e-6)
    assert max(ratios) > 1e-6


def test_what_the_policy_would_do_but_may_not_is_in_no_loss() -> None:
    """The gradient of a forbidden action's own weights is zero, and is not without the mask."""
    env = make_vec_env(EnvConfig(id=MASKED, kwargs={"length": 4}, num_envs=4), 4, seed=0)
    policy = make_model(env).policy
    first: Any = env.reset()
    obs, _ = policy.obs_to_tensor(first)
    gradients = []
    for masks in (torch.tensor([True, False, False, False]).expand(4, 4), None):
        _, log_probs, entropy = policy.evaluate_packed(
            obs, torch.zeros(4), policy.initial_state(4), torch.tensor([4]), masks
        )
        policy.zero_grad()
        (log_probs + entropy).sum().backward()
        assert policy.action_net.bias.grad is not None
        gradients.append(policy.action_net.bias.grad.abs())
    assert gradients[0].max() < 1e-6 < gradients[1].min()


def test_a_training_goes_on_where_the_last_one_ended() -> None:
    model = make_model(copies_of("dummy", Info))
    model.learn(24 * 3)
    model.learn(24 * 3, reset_num_timesteps=False)
    assert torch.equal(model.rollout.obs > 0.5, model.rollout.action_masks)  # type: ignore[operator,arg-type]
    model.set_env(DummyVecEnv([lambda: Method()] * 3))
    model.learn(24 * 3, reset_num_timesteps=False)
    assert torch.equal(model.rollout.obs > 0.5, model.rollout.action_masks)  # type: ignore[operator,arg-type]


def test_without_masks_the_policy_and_the_rollout_hear_of_none() -> None:
    class Older(RecurrentPolicy):
        def step(self, obs: Any, state: Tensor, deterministic: bool = False) -> Any:  # type: ignore[override]
            return super().step(obs, state, deterministic)

    model = RecurrentPPO(Older, DummyVecEnv([Noise] * 2), n_steps=8, policy_kwargs=NETWORK)
    model.learn(16)
    assert model.rollout.action_masks is None
    assert model.rollout_buffer.action_masks is None


# --- environments whose masks are wrong ----------------------------------------------------------------------


class Wrong(Info):
    """Goes wrong in its second step."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.steps = what, 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        observation, reward, *_ = super().step(action)
        self._draw()
        info: dict[str, Any] = {"action_mask": self.mask}
        if self.steps > 1:
            info = {} if self.what == "missing" else {"action_mask": np.zeros(3 if self.what == "short" else 4)}
        return observation, reward, False, False, info


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (
            "missing",
            r"^env: info\['action_mask'\] of copy 1 is missing; if reset returns a mask, every step must return",
        ),
        ("short", r"^env: the action mask of copy 1 has 3 entries, but Discrete\(4\) needs 4, one for each action\.$"),
        ("none", r"^env: the action mask of copy 1 allows no action: at least one entry must be true\.$"),
    ],
)
def test_a_wrong_mask_ends_a_training_with_one_sentence(what: str, sentence: str) -> None:
    with pytest.raises(RunFailedError, match=sentence):
        make_model(DummyVecEnv([Info, lambda: Wrong(what)])).learn(48)


def test_masks_that_come_with_steps_only_are_not_used_and_a_warning_says_so() -> None:
    class Late(Noise):
        def step(self, action: Any) -> Any:
            return *super().step(action)[:4], {"action_mask": np.zeros(2)}

    with pytest.warns(UserWarning, match=r"step returns info\['action_mask'\], but reset does not, so no masks are"):
        make_model(DummyVecEnv([Late])).learn(24)


def test_masks_of_continuous_actions_are_refused() -> None:
    class Continuous(Noise):
        def __init__(self) -> None:
            super().__init__(action_space=spaces.Box(-1, 1, (2,)))

        def action_masks(self) -> np.ndarray:
            return np.ones(2, np.bool_)

    with pytest.raises(RunFailedError, match=r"^env: action masks are for Discrete, MultiDiscrete and MultiBinary"):
        make_model(DummyVecEnv([Continuous])).learn(24)


# --- predict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(SPACES))
@pytest.mark.parametrize("deterministic", [True, False])
def test_predict_takes_masks_of_one_observation_and_of_a_batch(kind: str, deterministic: bool) -> None:
    torch.manual_seed(0)
    model = make_model(copies_of("single", Method, kind))
    size = sum(SIZES[kind])
    for n in (1, 5):
        masks = draw_masks(kind, n)
        obs = np.random.default_rng(0).random((n, size), np.float32)
        actions, state = model.predict(obs, deterministic=deterministic, action_masks=masks.numpy())
        assert state is not None
        assert allowed(kind, masks, torch.from_numpy(actions)).all()
        again, _ = model.predict(obs, state, deterministic=deterministic, action_masks=masks.numpy().astype(np.int8))
        assert allowed(kind, masks, torch.from_numpy(again)).all()
    one, _ = model.predict(obs[0], episode_start=np.ones(1), deterministic=deterministic, action_masks=masks[0].numpy())
    assert allowed(kind, masks[:1], torch.from_numpy(np.asarray(one))).all()
    with pytest.raises(ValueError, match="there are 2 action masks for 5 copies"):
        model.predict(obs, episode_start=np.ones(5), action_masks=masks[:2].numpy())
    with pytest.raises(ValueError, match=f"has 1 entries, but .* needs {size}"):
        model.predict(obs[0], episode_start=np.ones(1), action_masks=np.ones(1))


# --- our environment, and what is around it ------------------------------------------------------------------


def test_the_masked_maze_allows_all_but_walls() -> None:
    env = make_batched_env(MASKED, num_envs=64, kwargs={"length": 3})
    assert isinstance(env, MaskedTMazeVectorEnv)
    single: Any = make_env(MASKED, kwargs={"length": 3})
    single.reset(seed=0)
    assert single.get_wrapper_attr("action_masks")().tolist() == [True, False, False, False]
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    ended = 0
    for _ in range(40):
        places = {(0, 1): {RIGHT}, (2,): {RIGHT, LEFT}, (3,): {UP, LEFT, DOWN}}
        masks = env.action_masks()
        for observation, mask in zip(observations, masks, strict=True):
            seen = int(observation[:4].argmax())
            assert set(np.flatnonzero(mask)) == next(right for place, right in places.items() if seen in place)
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        observations, rewards, terminated, truncated, _ = env.step(actions)
        assert ((rewards == 0) | terminated).all()
        ended += (terminated | truncated).sum()
    assert ended > 100


@pytest.mark.parametrize("wrappers", [[], [{"name": "previous_action_reward"}]])
def test_sb3_contribs_functions_find_the_masks(wrappers: list[Any]) -> None:
    env = make_vec_env(EnvConfig(id=MASKED, kwargs={"length": 4}, wrappers=wrappers), 3, seed=0)
    assert isinstance(env.unwrapped, BatchedVecEnv)
    env.reset()
    assert is_masking_supported(env)
    assert get_action_masks(env).tolist() == [[True, False, False, False]] * 3
    assert env.env_method("action_masks", indices=[1])[0].tolist() == [True, False, False, False]
    plain = make_vec_env(EnvConfig(id="bistable_rl/TMaze-v0"), 3, seed=0)
    assert not is_masking_supported(plain)
    with pytest.raises(AttributeError, match="action_masks"):
        get_action_masks(plain)


class Steps:
    """A policy that takes every step, and keeps none of what lies ahead."""

    def __init__(self, policy: RecurrentPolicy) -> None:
        self.policy = policy

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False, **given: Any
    ) -> Any:
        assert "action_masks" in given
        return self.policy.predict(observation, state, episode_start, deterministic, **given)


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_looking_ahead_takes_the_masked_steps_one_by_one(bias: float) -> None:
    config = EnvConfig(id=MASKED, kwargs={"length": 30, "distractors": "uniform"})
    env = make_vec_env(config, 6, seed=3)
    torch.manual_seed(0)
    policy = make_model(env, n_steps=100).policy
    with torch.no_grad():
        policy.action_net.weight *= 300
        policy.action_net.bias[0] += bias
    results = []
    for agent in (policy, Steps(policy)):
        env.seed(5)
        results.append(evaluate(agent, env, 12))
    for name in ("returns", "lengths", "successes"):
        np.testing.assert_array_equal(getattr(results[0], name), getattr(results[1], name))
    assert np.isin(results[0].returns.round(6), (4, -0.1, 0)).all()  # the arms, or neither, and no wall


def test_an_agent_without_the_argument_is_evaluated_as_before() -> None:
    class Right:
        def predict(self, observation: Any, state: Any = 0, episode_start: Any = 0, deterministic: bool = True) -> Any:
            return np.zeros(len(observation), np.int64), None

    env = make_vec_env(EnvConfig(id=MASKED, kwargs={"length": 2}), 2, seed=0)
    assert evaluate(Right(), env, 2).lengths.tolist() == [5, 5]


def test_no_search_for_distractors_claims_what_masks_change() -> None:
    env = make_vec_env(EnvConfig(id=MASKED, kwargs={"length": 4}), 2, seed=0)
    with pytest.raises(ValueError, match="does not declare which observations"):
        attack(make_model(env).policy, MaskedTMazeVectorEnv(length=4), 10)


def test_the_commands_train_evaluate_and_play(tmp_path: Path) -> None:
    options = ["--total_steps", "128", "--env.num_envs", "4", "--algorithm.n_steps", "16", "--env.kwargs.length", "5"]
    options += ["--evaluation.episodes", "3", "--evaluation.every", "64", "--warmup.steps", "1"]
    options += ["--algorithm.batch_size", "32"]
    assert main(["train", "rl/t_maze_masked", *options, "--out", str(tmp_path)]) == 0
    run = tmp_path / "t_maze_masked" / "nbrc-seed0"
    assert main(["evaluate", str(run), "--episodes", "4", "--json", str(tmp_path / "result.json")]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["return_mean"] >= -0.1  # no step against a wall
    shown: list[str] = []
    assert all(-0.1 <= played <= 4 for played in watch(run, episodes=2, delay=0, show=shown.append))
    assert "action: 0" in shown[0]  # at the entrance
    agent, env = bistable_rl.load(run), make_env(MASKED, kwargs={"length": 5})
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation, action_masks=env.get_wrapper_attr("action_masks")())
    assert int(action) == RIGHT


def test_a_wrong_mask_is_found_before_a_run_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MaskedTMazeVectorEnv, "action_masks", lambda self: np.zeros((self.num_envs, 4), np.bool_))
    assert main(["train", "rl/t_maze_masked", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "env: the action mask of copy 0 allows no action: at least one entry must be true." in told
    assert not list(tmp_path.iterdir())


def test_the_pages_example_runs() -> None:
    page = (Path(__file__).parents[1] / "agents/ACTION_MASKS.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(block.replace("20_000", "300"), names)
    masks = names["model"].rollout.action_masks
    assert masks is not None
    assert not masks.all()
    assert names["steps"] > 0


@pytest.mark.slow
def test_the_goal_of_the_masked_maze_is_remembered(tmp_path: Path) -> None:
    experiment = load_config(Experiment, yaml_of("rl/t_maze_masked"), ["--total_steps", "100000"])
    result = json.loads((train(experiment, tmp_path) / "result.json").read_text())
    assert result["evaluation"]["success_rate"] >= 0.9


def yaml_of(name: str) -> Path:
    return Path(__file__).parents[1] / "configs" / f"{name}.yaml"
