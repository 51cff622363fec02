"""Search for the best values of the keys of a config: spaces in YAML, run by Optuna (the extra `tune`)."""
