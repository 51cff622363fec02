"""Measurements of speed: cells, benchmarks, environments and PPO, each against the alternative that a user has."""
