"""Keys and, later, prices, quotas, policy and audit."""
