"""The resident interpreter behind warm test runs: standard library only, no module of ours.

It runs inside the sandbox with the project's own ``python``, where this package does not exist:
``__main__.py`` is started as a script and makes a package ``_tightloop_warm`` of this directory.
So modules here import each other relatively, and nothing else of tightloop.
"""
