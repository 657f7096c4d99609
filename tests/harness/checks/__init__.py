"""Tests of continuous checks."""
