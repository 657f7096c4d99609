"""The ``tightloop`` command, one verb per module."""
