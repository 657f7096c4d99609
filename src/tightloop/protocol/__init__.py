"""The words on the wire: items, requests, events, errors, and their state machines. No I/O."""
