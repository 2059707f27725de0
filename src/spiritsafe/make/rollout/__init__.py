"""Rollouts: the student's own answers, drawn on the training weights; one file an engine or a source."""
