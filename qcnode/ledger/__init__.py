"""Everything that happened, in SQL."""
