"""Benches: one script each, side by side with peers, printing one JSON object in the schema of `_schema.py`."""
