"""What runs have in common and how they differ: curves and tables from run folders."""
