"""Serves a model through vLLM's own engine, session by session.

vLLM samples by itself, in another process. ``backend`` makes a ``TokenBackend`` of it: it lets vLLM run
ahead greedily and hands out what comes as long as the family chooses the same tokens.
"""
