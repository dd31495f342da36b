"""Documents and alerts on their way to where they are due."""
