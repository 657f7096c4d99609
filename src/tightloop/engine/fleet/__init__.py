"""Several engines as one: models side by side, tiers of one model, failover."""
