"""HTTP and WebSocket on one port in front of an engine."""
