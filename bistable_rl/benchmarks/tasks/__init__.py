"""The supervised tasks of the papers."""
