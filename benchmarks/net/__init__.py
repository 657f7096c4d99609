"""Experiments over models and networks: follow-up turns, emulated distance, a replayed session."""
