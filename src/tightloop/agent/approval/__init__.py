"""Who decides what the model may do: modes, rules, questions to a person, and hooks of the user."""
