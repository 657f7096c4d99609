"""Warm test runs on real projects: do they say what cold ones say, and how much sooner?"""
