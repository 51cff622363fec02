"""The supervised benchmarks of the papers, on the same cells as the agents."""
