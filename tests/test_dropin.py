"""Our layers in TorchRL and our policy and algorithm in rl-zoo3 (`pip install bistable-rl[dropin]`)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bistable_rl import rnn

pytestmark = pytest.mark.slow
H = 16


def torchrl_losses(gru: nn.Module, updates: int) -> tuple[Any, list[list[float]], list[torch.Tensor]]:
    """Let a GRUModule on these layers act, and take PPO steps; return its rollout, losses and last gradients."""
    pytest.importorskip("torchrl")
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.envs import GymEnv, InitTracker, TransformedEnv
    from torchrl.modules import GRUModule, ProbabilisticActor, set_recurrent_mode
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    torch.manual_seed(0)
    heads = [nn.Linear(H, 2), nn.Linear(H, 1)]
    env = TransformedEnv(GymEnv("CartPole-v1"), InitTracker())
    env.set_seed(0)
    memory = GRUModule(gru=gru, in_keys=["observation", "state"], out_keys=["features", ("next", "state")])
    env.append_transform(memory.make_tensordict_primer())
    actor_head, critic_head = (
        TensorDictModule(head, in_keys=["features"], out_keys=[key])
        for head, key in zip(heads, ("logits", "state_value"), strict=True)
    )
    actor = ProbabilisticActor(
        TensorDictSequential(memory, actor_head),
        in_keys=["logits"],
        distribution_class=torch.distributions.OneHotCategorical,
        return_log_prob=True,
    )
    critic = TensorDictSequential(memory, critic_head)
    with torch.no_grad():
        rollout = env.rollout(80, actor, break_when_any_done=False)
    assert rollout["is_init"].sum() > 2  # so that TorchRL pads and masks
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01)
    optimizer = torch.optim.SGD(loss.parameters(), 0.01)
    losses = []
    with set_recurrent_mode(True):
        with torch.no_grad():
            GAE(gamma=0.99, lmbda=0.95, value_network=critic, shifted=True)(rollout)
            again = memory(rollout.clone())["features"]
        torch.testing.assert_close(again, rollout["features"])  # those of the single steps
        for _ in range(updates):
            out = loss(rollout)
            names = ("loss_objective", "loss_critic", "loss_entropy")
            optimizer.zero_grad()
            sum(out[name] for name in names).backward()
            optimizer.step()
            losses.append([float(out[name].detach()) for name in names])
    return rollout, losses, [p.grad for p in gru.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["brc", "nbrc", "gru", "goru"])
def test_torchrls_gru_module_trains_our_layers_through_its_ppo_loss(name: str) -> None:
    torch.manual_seed(1)
    _, losses, gradients = torchrl_losses(rnn.make_rnn(name, 4, H, 2, batch_first=True), 5)
    assert losses[-1][0] < losses[0][0]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert min(float(gradient.abs().max()) for gradient in gradients) > 0


def test_torchrls_losses_and_gradients_are_those_of_torchs_gru_with_the_same_weights() -> None:
    theirs = nn.GRU(4, H, 2, batch_first=True)
    ours = rnn.GRU(4, H, 2, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    (seen, losses, gradients), (expected, wanted, others) = (torchrl_losses(gru, 3) for gru in (ours, theirs))
    assert torch.equal(seen["action"], expected["action"])
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)


HYPERPARAMETERS = """
CartPole-v1:
  n_envs: 4
  n_timesteps: 512
  normalize: {norm_obs: true, norm_reward: true}
  policy: bistable_rl.agents.MlpRecurrentPolicy
  n_steps: 32
  batch_size: 64
  n_epochs: 2
  learning_rate: lin_0.001
  clip_range: lin_0.2
  policy_kwargs: {cell: nbrc, hidden_size: 8}
"""

ZOO = """
import sys
import rl_zoo3, rl_zoo3.enjoy, rl_zoo3.train
from bistable_rl.agents import RecurrentPPO

rl_zoo3.ALGOS["recurrent_ppo"] = RecurrentPPO
{"train": rl_zoo3.train.train, "enjoy": rl_zoo3.enjoy.enjoy}[sys.argv.pop(1)]()
"""


@pytest.mark.parametrize("algorithm", ["ppo_lstm", "recurrent_ppo"])
def test_rl_zoo3_trains_and_plays_our_policy_and_our_algorithm(algorithm: str, tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    (tmp_path / "hyperparameters.yml").write_text(HYPERPARAMETERS)
    (tmp_path / "zoo.py").write_text(ZOO)

    def zoo(command: str, *options: str) -> str:
        shared = ["--algo", algorithm, "--env", "CartPole-v1", "-f", "logs", "--num-threads", "1"]
        argv = [sys.executable, "zoo.py", command, *shared, *options]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    evaluated = ["--eval-freq", "256", "--eval-episodes", "2", "--n-eval-envs", "1"]
    zoo("train", "--conf-file", "hyperparameters.yml", *evaluated)
    run = tmp_path / "logs" / algorithm / "CartPole-v1_1"
    assert {"best_model.zip", "CartPole-v1.zip"} <= {path.name for path in run.iterdir()}
    for options in ([], ["--load-best"]):
        assert "Mean reward" in zoo("enjoy", "--no-render", "-n", "600", *options)
    if algorithm == "recurrent_ppo":  # trains on
        continued = zoo("train", "--conf-file", "hyperparameters.yml", "-i", str(run / "CartPole-v1.zip"), *evaluated)
        assert "Loading pretrained agent" in continued
