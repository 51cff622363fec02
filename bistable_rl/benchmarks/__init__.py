"""The supervised benchmarks of the papers, with the same cells as the agents."""
