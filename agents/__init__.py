"""Agents with a bistable memory: policies for sb3-contrib's recurrent PPO, training, evaluation."""

from bistable_rl.agents.policies import CnnRecurrentPolicy, MlpRecurrentPolicy, MultiInputRecurrentPolicy

__all__ = ["CnnRecurrentPolicy", "MlpRecurrentPolicy", "MultiInputRecurrentPolicy"]
