"""The dynamics of cells and networks: gates, fixed points, attractors, memory and warm-up."""
