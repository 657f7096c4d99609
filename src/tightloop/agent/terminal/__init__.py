"""What a person sees of the agent: reads events, decides nothing."""
