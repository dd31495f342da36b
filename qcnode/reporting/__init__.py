"""What the node says: structured report, recall flag, secondary capture."""
