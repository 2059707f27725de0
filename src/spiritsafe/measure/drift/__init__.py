"""Drift from copy to copy: what is measured of every generation on the same prompts, and what has changed."""
