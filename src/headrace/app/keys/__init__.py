"""API keys: the commands, and what a server goes by."""
