"""Images of digits, for an environment and for benchmarks; knows neither torch nor gymnasium."""
