"""POPGym's environments (Morad et al. 2023, "POPGym: Benchmarking Partially Observable Reinforcement Learning", ICLR).

Each equals that of the package popgym 1.0.7 step for step, batched: from the same hidden state it has the same
observations (flat), rewards and ends. Our own generator draws hidden states from popgym's distribution, so a seed gives
other episodes than in popgym.
"""

from dataclasses import dataclass
from typing import Any

from bistable_rl.envs.popgym.autoencode import PopgymAutoencodeEnv
from bistable_rl.envs.popgym.battleship import PopgymBattleshipEnv
from bistable_rl.envs.popgym.cartpole import PopgymPositionOnlyCartPoleEnv
from bistable_rl.envs.popgym.concentration import PopgymConcentrationEnv
from bistable_rl.envs.popgym.count_recall import PopgymCountRecallEnv
from bistable_rl.envs.popgym.higher_lower import PopgymHigherLowerEnv
from bistable_rl.envs.popgym.minesweeper import PopgymMineSweeperEnv
from bistable_rl.envs.popgym.pendulum import PopgymPositionOnlyPendulumEnv
from bistable_rl.envs.popgym.repeat_first import PopgymRepeatFirstEnv
from bistable_rl.envs.popgym.repeat_previous import PopgymRepeatPreviousEnv
from bistable_rl.envs.single_env import SingleEnv

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One of POPGym's environments at its three levels.

    Attributes:
        single: The environment of one copy.
        horizon: The name of the argument that sets the length of an episode.
        levels: The arguments of Easy, Medium and Hard.
        reward_thresholds: The returns that count as solved.
    """

    single: type[SingleEnv]
    horizon: str
    levels: tuple[Arguments, Arguments, Arguments]
    reward_thresholds: tuple[float, float, float]


NOISE = ({"noise_sigma": 0.1}, {"noise_sigma": 0.2}, {"noise_sigma": 0.3})

TASKS: dict[str, Task] = {
    "RepeatFirst": Task(
        PopgymRepeatFirstEnv,
        "num_decks",
        ({"num_decks": 1}, {"num_decks": 8}, {"num_decks": 16}),
        (0.85, 0.85, 0.85),
    ),
    "RepeatPrevious": Task(
        PopgymRepeatPreviousEnv,
        "num_decks",
        ({"num_decks": 1, "k": 4}, {"num_decks": 2, "k": 32}, {"num_decks": 3, "k": 64}),
        (0.851, 0.85, 0.85),
    ),
    "Autoencode": Task(
        PopgymAutoencodeEnv,
        "num_decks",
        ({"num_decks": 1}, {"num_decks": 2}, {"num_decks": 3}),
        (0.853, 0.851, 0.851),
    ),
    "CountRecall": Task(
        PopgymCountRecallEnv,
        "num_decks",
        (
            {"num_decks": 1, "deck_type": "colors"},
            {"num_decks": 2, "deck_type": "suits"},
            {"num_decks": 4, "deck_type": "ranks"},
        ),
        (0.808, 0.808, 0.812),
    ),
    "Concentration": Task(
        PopgymConcentrationEnv,
        "num_decks",
        (
            {"num_decks": 1, "deck_type": "colors"},
            {"num_decks": 2, "deck_type": "colors"},
            {"num_decks": 1, "deck_type": "ranks"},
        ),
        (0.881, 0.881, 0.816),
    ),
    "HigherLower": Task(
        PopgymHigherLowerEnv,
        "num_decks",
        ({"num_decks": 1}, {"num_decks": 2}, {"num_decks": 3}),
        (0.525, 0.514, 0.51),
    ),
    "MineSweeper": Task(
        PopgymMineSweeperEnv,
        "size",
        ({"size": 4, "num_mines": 2}, {"size": 6, "num_mines": 6}, {"size": 8, "num_mines": 10}),
        (0.877, 0.86, 0.857),
    ),
    "Battleship": Task(
        PopgymBattleshipEnv,
        "size",
        ({"size": 8}, {"size": 10}, {"size": 12}),
        (0.855, 0.858, 0.86),
    ),
    "PositionOnlyCartPole": Task(
        PopgymPositionOnlyCartPoleEnv,
        "length",
        ({"length": 200}, {"length": 400}, {"length": 600}),
        (0.911, 0.906, 0.904),
    ),
    "NoisyPositionOnlyCartPole": Task(PopgymPositionOnlyCartPoleEnv, "length", NOISE, (0.911, 0.911, 0.911)),
    "PositionOnlyPendulum": Task(
        PopgymPositionOnlyPendulumEnv,
        "length",
        ({"length": 200}, {"length": 150}, {"length": 100}),
        (0.848, 0.823, 0.772),
    ),
    "NoisyPositionOnlyPendulum": Task(PopgymPositionOnlyPendulumEnv, "length", NOISE, (0.848, 0.848, 0.848)),
}
"""POPGym's environments by name: `bistable_rl/Popgym<name><level>-v0`."""

LEVELS = ("Easy", "Medium", "Hard")
