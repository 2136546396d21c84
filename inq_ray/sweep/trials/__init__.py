"""Trials of a sweep: their definition and state, early stopping, and ranking."""
