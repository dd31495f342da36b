"""What the ledger knows, as a page."""
