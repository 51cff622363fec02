"""Agents with a bistable memory: policies, recurrent PPO, training, evaluation."""

from bistable_rl.agents.policy import CnnRecurrentPolicy, MlpRecurrentPolicy, MultiInputRecurrentPolicy
from bistable_rl.agents.ppo import RecurrentPPO

__all__ = ["CnnRecurrentPolicy", "MlpRecurrentPolicy", "MultiInputRecurrentPolicy", "RecurrentPPO"]
