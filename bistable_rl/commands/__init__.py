"""The commands of `bistable-rl`, one file each.

Each imports what it needs when it runs, so that help answers at once.
"""
