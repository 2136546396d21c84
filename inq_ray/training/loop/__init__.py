"""Epochs of masked SGD under DDP: batches, learning rate, averages, faults, and where the time goes."""
