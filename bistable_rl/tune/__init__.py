"""Search for the keys of a config that reach the most: spaces in YAML, carried out by Optuna (the extra `tune`)."""
