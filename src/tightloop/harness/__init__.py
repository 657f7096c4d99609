"""A conversation on a repository: workspace, sandbox, backend, tools and agent put together."""
