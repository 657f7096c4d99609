"""How each client is pointed at ``tightloop serve``: one module per client, picked by name."""
