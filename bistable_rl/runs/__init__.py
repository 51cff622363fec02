"""Runs: configurations, run folders, and the files that a training writes there."""
