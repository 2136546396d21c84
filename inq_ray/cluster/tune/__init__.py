"""Sweeps on Ray: Ray Tune asks the sweep's registry what to start next, and each trial runs a `TorchTrainer`."""
