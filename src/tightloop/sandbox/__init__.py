"""Isolation, copy-on-write workspaces, the exec server inside, warm test processes."""
