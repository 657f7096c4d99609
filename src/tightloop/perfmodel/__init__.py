"""Arithmetic of accelerators. No I/O."""
