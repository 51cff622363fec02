"""bistable-rl: recurrent cells that keep a memory by themselves, and agents that use them."""
