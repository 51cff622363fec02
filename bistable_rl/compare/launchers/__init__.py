"""Where the runs of a grid are carried out: processes of this machine, or a Ray cluster."""
