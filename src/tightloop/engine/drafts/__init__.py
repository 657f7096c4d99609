"""Tokens that an answer probably goes on with, so that one step can check several of them."""
