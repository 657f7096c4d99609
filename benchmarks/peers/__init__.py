"""tightloop beside its peers: one upstream, one client, every gateway between them in turn."""
