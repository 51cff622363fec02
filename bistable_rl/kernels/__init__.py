"""Scans over time: pure functions on tensors that know no cell."""
