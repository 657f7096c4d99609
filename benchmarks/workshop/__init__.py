"""What the tool side costs, beside what others do: commands, workspaces, tests, patches, tool calls."""
