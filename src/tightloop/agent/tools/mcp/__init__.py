"""Tools of MCP servers that the user has configured, through the official client library."""
