"""The trained network of a run and the sequences that it has run on.

Agents and supervised networks look alike here: layers, their input sequences, and the steps of marks and answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from bistable_rl.agents.agent import Agent, load
from bistable_rl.agents.env_masks import EnvMasks
from bistable_rl.agents.evaluation import playing
from bistable_rl.agents.play import Choose, record
from bistable_rl.agents.vec_envs import close, make_rendered_env, make_vec_env
from bistable_rl.benchmarks.runner import load_network
from bistable_rl.envs.registry import find_spec
from bistable_rl.rnn import RNN
from bistable_rl.runs import checkpoint
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Benchmark, Experiment
from bistable_rl.runs.seeds import ANALYSIS, derived_seed

LONGEST = 2_000
"""Steps after which an agent's episode is truncated."""
FLAGGED = {"denoising": 5, "bistable_rl/Denoising-v0": 5, "bistable_rl/DenoisingDiscrete-v0": 5}
"""Number of final answers of the tasks and environments whose last input is 1 at the marked steps."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and n of its input sequences.

    Attributes:
        title: The run, the task and the layers, for a heading.
        run: Its run folder.
        rnn: Its recurrent layers, with the weights of the last checkpoint.
        network: The whole network, into which other checkpoints can be loaded.
        x: (T, n, I) inputs of the layers, zeros after a sequence's end.
        lengths: (n,) steps of each sequence.
        marked: (T, n) whether an input is marked; None if the task has no marks.
        answers: Number of answered steps at a sequence's end.
        successes: (n,) of an agent's episodes, if the environment reports success.
        frames: Frames of the first sequence, one per step, if the environment renders any.
        cut: Number of an agent's episodes that were truncated after `LONGEST` steps.
    """

    title: str
    run: Run
    rnn: RNN
    network: nn.Module
    x: Tensor
    lengths: Tensor
    marked: np.ndarray | None
    answers: int
    successes: np.ndarray | None = None
    frames: list[np.ndarray] | None = None
    cut: int = 0

    @property
    def answer(self) -> np.ndarray:
        """(n,) the first answered step of each sequence."""
        first: np.ndarray = np.maximum(self.lengths.numpy() - self.answers, 0)
        return first

    def checkpoints(self) -> Iterator[int]:
        """Load the weights of every kept checkpoint, the oldest first; yield its training steps.

        Raises:
            UserError: If a checkpoint is broken.
        """
        for folder in self.run.checkpoints.all():
            yield int(checkpoint.load_weights(folder, self.network)["steps"])


def read_trained(run: Run | Path, episodes: int) -> TrainedNetwork:
    """Open a run and run its agent on episodes, or its supervised network on test samples.

    Args:
        run: A run or its folder, of an agent or a supervised network.
        episodes: n, number of sequences, at least 2.

    Raises:
        UserError: If there is no run, or its checkpoint is missing or broken.
        RunFailedError: If the environment fails during an episode.
    """
    run = Run.open(run)
    config = run.config
    return _supervised(run, config, episodes) if isinstance(config, Benchmark) else _agent(run, config, episodes)


def _supervised(run: Run, benchmark: Benchmark, samples: int) -> TrainedNetwork:
    network, task = load_network(run)
    generator = torch.Generator().manual_seed(derived_seed(benchmark.seed, ANALYSIS))
    x, _ = task.test_set(generator, benchmark.protocol).batch(torch.arange(samples))
    lengths = torch.full((samples,), len(x))
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x)
    title = f"{benchmark.name}: {benchmark.task.name} with {benchmark.network.num_layers} x "
    title += f"{benchmark.network.hidden_size} {benchmark.cell}"
    marked = _marked(benchmark.task.name, x)
    return TrainedNetwork(title, run, network.rnn, network, x, lengths, marked, task.answers)


def _agent(run: Run, experiment: Experiment, episodes: int) -> TrainedNetwork:
    agent = load(run)
    seed = derived_seed(experiment.seed, ANALYSIS)
    env = make_vec_env(experiment.env, episodes, seed)
    with playing():
        try:
            played = record(env, agent.policy, _acting(agent), LONGEST)
        finally:
            close(env)
    env_id = find_spec(experiment.env.id).id
    title = f"{experiment.name}: {env_id} with {experiment.policy.num_layers} x "
    title += f"{experiment.policy.hidden_size} {experiment.cell}"
    return TrainedNetwork(
        title,
        run,
        agent.policy.memory,
        agent.policy,
        played.features,
        played.lengths,
        _marked(env_id, played.features),
        FLAGGED.get(env_id, 1),
        played.successes,
        _frames(experiment, agent, seed),
        played.cut,
    )


def _acting(agent: Agent) -> Choose:
    state: Any = None

    def choose(observation: Any, starts: np.ndarray, masks: EnvMasks) -> np.ndarray:
        nonlocal state
        actions, state = agent.predict(observation, state, starts, **masks.given)
        return actions

    return choose


def _frames(experiment: Experiment, agent: Agent, seed: int) -> list[np.ndarray] | None:
    """Play the first episode once more and return its frames; None if the environment renders none."""
    env = make_rendered_env(experiment.env, seed)
    try:
        if env.render_mode != "rgb_array":
            return None
        frames: list[np.ndarray] = []
        act = _acting(agent)

        def choose(observation: Any, starts: np.ndarray, masks: EnvMasks) -> np.ndarray:
            frame = env.render()
            assert frame is not None
            frames.append(frame)
            return act(observation, starts, masks)

        with playing():
            record(env, agent.policy, choose, LONGEST)
        return frames
    finally:
        close(env)


def _marked(task: str, x: Tensor) -> np.ndarray | None:
    flags: np.ndarray = (x[..., -1] == x[..., -1].max()).cpu().numpy()  # 1, unless observations are normalised
    return flags if task in FLAGGED else None


def cue_and_noise(trained: TrainedNetwork, steps: int, per_cue: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Make sequences of a forced cue and then noise, both drawn from a network's own sequences.

    A cue is the input of a marked step, or of the first step if nothing is marked; noise is drawn from all other steps
    before the answers. If the cues are numbers, each different, they are grouped by their signs.

    Args:
        trained: The network whose sequences contain cues and noise.
        steps: Steps of noise after the cue.
        per_cue: Sequences of each cue.
        seed: Seed of the draws.

    Returns:
        (1 + steps, n, I) inputs and (n,) integers, the cue of each sequence.

    Raises:
        ValueError: If all cues are the same, or there is no step of noise.
    """
    x, T = trained.x.cpu().numpy(), len(trained.x)
    before_answer = np.arange(T)[:, None] < trained.answer
    first = np.zeros_like(before_answer)
    first[0] = True
    is_cue = first if trained.marked is None else trained.marked & before_answer
    cues, noise = x[is_cue], x[before_answer & ~is_cue]
    if not len(noise):
        raise ValueError("the sequences have no step between the cue and the answer")
    different, which = np.unique(cues.round(4), axis=0, return_inverse=True)
    which = which.reshape(-1)
    if len(different) > len(cues) / 2:
        which = (cues[:, 0] > 0).astype(int)
    kinds = np.unique(which)
    if len(kinds) < 2:
        raise ValueError("every sequence begins with the same cue")
    generator = np.random.default_rng(seed)
    chosen = np.concatenate([generator.choice(np.flatnonzero(which == kind), per_cue) for kind in kinds])
    drawn = noise[generator.integers(len(noise), size=(steps, len(chosen)))]
    return torch.from_numpy(np.concatenate([cues[chosen][None], drawn])).to(trained.x), which[chosen]
