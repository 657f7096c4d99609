"""Commands that run after each patch in a copy of the workspace, and what is new in their results."""
