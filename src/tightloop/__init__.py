"""tightloop: a coding agent and serving stack built for short edit-test rounds."""

__version__ = "0.1.0.dev0"
