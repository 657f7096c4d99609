"""Placeholder until the warm process is in: it refuses, and every command runs cold."""
