"""The measure/safety room."""
