"""Where things lie, how files are written, and what can be set."""
