"""Grids of runs: carried out, continued after anything that stops them, and compared with honest statistics."""
