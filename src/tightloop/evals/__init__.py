"""Adapters for public evaluation suites."""
