"""Checkpoints: everything that a run needs to continue with the same bits, in files with digests.

`position` is a place in a run, `facts` everything but tensors, `snapshot` both, taken from a run's objects, and
`restore` puts them back. `compact` stores frozen weights as codes, and `stored` reads them, a piece at a time.
`validate` checks tensors against the facts, `files` encodes and checks files with digests, `store` keeps checkpoints on
this machine, a shared folder or an object store and finds the newest valid one, `retention` decides which to keep.
`writer` copies and writes in a thread, `clock` decides when one is due, `broadcast` sends what rank 0 reads to all
ranks, `checkpoints` does all of that for a run, and `resume` decides whether to start, to continue, or to refuse.
"""
