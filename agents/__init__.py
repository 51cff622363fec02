"""Agents with a bistable memory: policies, recurrent PPO, training, evaluation."""

from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.sb3_contrib import CnnRecurrentPolicy, MlpRecurrentPolicy, MultiInputRecurrentPolicy

__all__ = ["CnnRecurrentPolicy", "MlpRecurrentPolicy", "MultiInputRecurrentPolicy", "RecurrentPPO"]
