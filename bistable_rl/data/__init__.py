"""Images of digits for an environment and for benchmarks; imports neither torch nor gymnasium."""
