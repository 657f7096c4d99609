"""Reproduces the bundled patch model: corpus, data, tokenizer, training, export, evaluation."""
