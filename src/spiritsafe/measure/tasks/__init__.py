"""The measure/tasks room."""
