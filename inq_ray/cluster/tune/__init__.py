"""Sweeps on Ray: Ray Tune asks the registry of a sweep what starts next; trials fit a `TorchTrainer`, or train here."""
