"""Results of other harnesses, read into the same table."""
