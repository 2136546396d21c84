"""Evaluation: accuracy of a network, and BatchNorm statistics estimated from training images."""
