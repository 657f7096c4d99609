"""Clocks, spans, the only definitions of the latency figures, ledgers and the JSONL log."""
