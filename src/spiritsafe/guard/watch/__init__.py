"""The guard/watch room."""
