"""What runs in a sandbox: standard library only, read by whatever interpreter is there."""
