"""A loss for certifiable memories: the answer after a cue must be right for every sequence of distractors.

From the state after a cue, a box bounds all states that any distractors can lead to. From this box follow the worst
logits of the answer. This is interval bound propagation (Gowal et al. 2018), here in time. The loss is the
cross-entropy of these worst logits with the agent's own answers in the better episodes of the rollout. Better episodes
earned at least the mean return, and more than an agent without memory expects. So the reward alone determines which
answers are right.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from bistable_rl.agents.buffer import RolloutBuffer
from bistable_rl.agents.features import reads_numbers
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.agents.vec_envs import BatchedVecEnv
from bistable_rl.cells import bounds
from bistable_rl.cells.bounds import Bounds
from bistable_rl.envs.distracted import DistractedEnv
from bistable_rl.envs.phases import Phases
from bistable_rl.errors import UserError
from bistable_rl.rnn import RNN

EVERY = 4
"""One minibatch in this many takes the loss: it is the same for a whole rollout, and costs more than a minibatch."""

WIDENINGS = (2, 10)
"""The numbers of widenings after which the worst logits count: early ones still differ where late ones are all lost."""

ROOM = 0.02
"""The widening of the inputs of gates and candidate: without it a box that just holds would stop growing very late."""


class CertifiedLoss:
    """The loss, for the observations that an environment declares and the answers of one rollout.

    The loss is multiplied by the share of better episodes of the cue with the smallest share. So the agent first learns
    to answer every cue: certain answers to the other cues would leave no room for a cue that is not learned yet.

    Args:
        phases: The observations.
        chance: The return that the best agent without memory expects; only episodes that earn more are imitated.
        policy: The policy that will be trained.
    """

    def __init__(self, phases: Phases, chance: float, policy: RecurrentPolicy) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(policy.device)

        self.cue = tensor(phases.cue)
        self.distraction = Bounds(tensor(phases.low), tensor(phases.high))
        self.answer = Bounds(tensor(phases.answer_low), tensor(phases.answer_high))
        self.chance = chance
        self.num_actions = int(policy.action_space.n)  # type: ignore[attr-defined]

    def see(self, buffer: RolloutBuffer) -> None:
        """Store the answers of the better episodes of a rollout, by the observations of cue and answer."""
        begin, end, copy = _episodes(buffer)
        obs = buffer.obs[buffer.context :]  # type: ignore[index]
        C, A = len(self.cue), len(self.answer.low)
        cue = _box_of(obs[begin, copy], Bounds(self.cue, self.cue))
        answer = _box_of(obs[end, copy], self.answer)
        known = (cue >= 0) & (answer >= 0)
        total = buffer.rewards.cumsum(0)
        returns = total[end, copy] - total[begin, copy] + buffer.rewards[begin, copy]
        good = known & (returns >= returns.mean() - 1e-6) & (returns > self.chance)

        counts = torch.zeros(C, A, self.num_actions, device=returns.device)
        index = cue[good], answer[good], buffer.actions[end, copy].long()[good]
        counts.index_put_(index, torch.ones_like(returns[good]), accumulate=True)
        self.seen, self.answers = counts.amax(-1) > 0, counts.argmax(-1)
        episodes, better = (torch.bincount(cue[which], minlength=C) for which in (known, good))
        shares = better[episodes > 0] / episodes[episodes > 0]
        self.share = shares.min() if len(shares) else torch.zeros((), device=returns.device)

    def __call__(self, policy: RecurrentPolicy) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the metrics to log."""
        if not self.share:
            return self.share, {"train/certified_share": self.share}
        output = self._outputs(policy.memory)
        for layer in policy.actor_mlp:
            if isinstance(layer, nn.Linear):
                output = bounds.linear(output, layer.weight, layer.bias)
            else:  # tanh
                output = Bounds(layer(output.low), layer(output.high))
        leads = self._leads(output, policy.action_net)
        loss = (torch.logsumexp(leads, -1) * self.seen).mean()
        with torch.no_grad():
            lost = leads[-1].scatter(-1, self.answers.unsqueeze(-1), -torch.inf).amax(-1) >= 0
            held = ~(lost & self.seen).any(-1) & self.seen.any(-1)
        metrics = {"certified_loss": loss.detach(), "certified_share": self.share, "held_cues": held.float().sum()}
        return self.share * loss, {f"train/{name}": value for name, value in metrics.items()}

    def _outputs(self, memory: RNN) -> Bounds:
        """Return the bounds of the last layer's output at the answer, (N, C, A, H), after N numbers of widenings."""
        cue, distraction, answer = self.cue, self.distraction.at(None), self.answer.at(None)
        for cell in memory.layers:
            cue = cell(cue)
            box, boxes, projected = Bounds(cue, cue), [], bounds.project(cell, distraction)
            projected = Bounds(projected.low - ROOM, projected.high + ROOM)
            for n in range(1, WIDENINGS[-1] + 1):
                box = bounds.widen(cell, projected, box)
                if n in WIDENINGS:
                    boxes.append(box)
            states = Bounds(*(torch.stack(ends).unsqueeze(2) for ends in zip(*boxes, strict=True)))
            answer = bounds.step(cell, bounds.project(cell, answer), states)
            distraction = box.at(slice(None), None)  # the input of the next layer, for each cue
        return answer

    def _leads(self, output: Bounds, action_net: nn.Linear) -> Tensor:
        """Return the most by which each action's logit can exceed that of the answer, (N, C, A, actions)."""
        weight, bias = action_net.weight, action_net.bias
        difference = weight - weight[self.answers].unsqueeze(-2)  # (C, A, actions, H)
        centre, radius = (output.low + output.high) / 2, (output.high - output.low) / 2
        leads = torch.einsum("cajh,ncah->ncaj", difference, centre)
        leads = leads + torch.einsum("cajh,ncah->ncaj", difference.abs(), radius)
        return leads + bias - bias[self.answers].unsqueeze(-1)


def _episodes(buffer: RolloutBuffer) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first step, the last step and the copy of each episode that begins and ends in a rollout."""
    starts = buffer.episode_starts[buffer.context :]
    begins = np.maximum.accumulate(np.where(starts, np.arange(len(starts))[:, None], -1))
    ends = np.nonzero(buffer.dones & (begins >= 0))  # -1 where the episode began before
    begin, end, copy = (torch.from_numpy(index).to(buffer.rewards.device) for index in (begins[ends], *ends))
    return begin, end, copy


def _box_of(x: Tensor, boxes: Bounds) -> Tensor:
    """Return the index of the box (M, D) that contains each row (N, D), or -1."""
    inside = ((x.unsqueeze(1) >= boxes.low) & (x.unsqueeze(1) <= boxes.high)).all(-1)
    return torch.where(inside.any(-1), inside.int().argmax(-1), -1)


def make_certified_loss(env: VecEnv, policy: RecurrentPolicy) -> CertifiedLoss:
    """Return the loss for the observations that an environment declares for each phase of an episode.

    Raises:
        UserError: If the environment declares none, or the loss cannot bound this policy on them.
    """
    needs = "algorithm.certified_coef above 0 needs"
    if policy.memory.layers[0].kernel not in bounds.BOUNDED:
        raise UserError(f"{needs} policy.cell {' or '.join(bounds.BOUNDED)}, not {policy.memory.cell}.")
    if not isinstance(policy.action_space, spaces.Discrete):
        raise UserError(f"{needs} Discrete actions, not {policy.action_space}.")
    if not reads_numbers(policy.features_extractor):
        raise UserError(f"{needs} observations read as they are: policy.features_extractor_class must be null.")
    if not all(isinstance(layer, nn.Linear | nn.Tanh) for layer in policy.actor_mlp):
        raise UserError(f"{needs} tanh layers: policy.activation_fn must be null.")
    if isinstance(env, VecNormalize):
        raise UserError(f"{needs} observations and rewards as they are: env.normalize must be false for both.")
    batch = env.env if isinstance(env, BatchedVecEnv) else None
    phases = batch.phases() if isinstance(batch, DistractedEnv) else None
    shape = policy.observation_space.shape
    if not isinstance(batch, DistractedEnv) or phases is None or shape != phases.cue.shape[1:]:
        raise UserError(
            f"{needs} an environment that declares the observations of each phase, such as CopyFirst, without wrappers."
        )
    if phases.meanwhile is not None:
        raise UserError(f"{needs} an environment where only the answer counts: the loss bounds no action before it.")
    return CertifiedLoss(phases, batch.memoryless_return, policy)
