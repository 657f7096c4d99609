"""The page docs/measured.md and its plots, made from the results; no number in it is typed by hand."""
