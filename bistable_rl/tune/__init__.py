"""Search for the best values of a config's keys: the spaces are in YAML, and Optuna (the extra `tune`) searches."""
