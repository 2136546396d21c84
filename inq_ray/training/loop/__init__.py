"""Training loop: epochs of masked SGD under DDP, batches, learning rate, averages, faults, and time spent."""
