"""Every attack of the list, run for real against every kind of isolation: see attack.py."""
