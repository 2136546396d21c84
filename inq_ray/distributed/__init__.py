"""Communication between ranks: tensors from rank 0, a stage's decisions, and checks that all replicas are equal.

Everything here is a no-op with a single process, so one process runs the same program as many.
"""
