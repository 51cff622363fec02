"""Runs: configurations, run folders and what a training writes into them."""
