"""Analysis of trained networks and agents, and the papers' figures."""
