"""What the ranks say to each other: tensors of rank 0, one stage's decisions, and checks that all replicas are equal.

Everything here is a no-op where there is nobody to talk to, so one process runs the same program as many.
"""
