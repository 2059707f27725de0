"""The guard room."""
