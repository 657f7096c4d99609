"""Programs that look at the stack from outside and measure it."""
