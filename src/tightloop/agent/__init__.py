"""The coding agent: the loop, its tools, its view of a session. It meets models on the wire only."""
