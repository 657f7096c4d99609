"""How a chat ends, for the shell."""

DONE = 0
CRASHED = 1
BAD_USAGE = 2
INTERRUPTED = 130
"""By a signal."""
