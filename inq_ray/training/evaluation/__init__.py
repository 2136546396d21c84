"""Accuracy of a network, and BatchNorm's statistics estimated from training images."""
