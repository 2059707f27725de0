"""The make room."""
