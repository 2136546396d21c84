"""Trained weights: files in any common form, weights by name, and what of them fits a network."""
