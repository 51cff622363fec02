"""Speed measurements: cells, benchmarks, environments and PPO, each against the peer a user would otherwise take."""
