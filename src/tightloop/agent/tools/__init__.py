"""What the model can ask the agent to do."""
