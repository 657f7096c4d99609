"""The patch tool's core: V4A text in, an atomic change of the workspace or a repair hint out."""
