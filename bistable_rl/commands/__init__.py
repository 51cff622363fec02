"""The commands of `bistable-rl`, one file each: its arguments, a call and its output.

A command imports its libraries when it runs, so that help is fast.
"""
