"""The published tables and figures, and the grids of runs that reproduce them."""
