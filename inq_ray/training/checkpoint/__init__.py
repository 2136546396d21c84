"""Checkpoints: everything that a run needs to continue with the same bits, in files with digests.

`position` is a place in a run, `facts` everything but tensors, `snapshot` both, taken from a run's objects, and
`restore` puts them back. `compact` stores frozen weights as codes, `validate` checks tensors against the facts, `files`
encodes and decodes with digests, `store` keeps checkpoints on this machine, a shared folder or an object store and
finds the newest valid one, `retention` decides which to keep. `writer` copies and writes in a thread, `clock` decides
when one is due, `broadcast` sends rank 0's to all ranks, `checkpoints` does all of that for a run, and `resume` decides
whether to start, to continue, or to refuse.
"""
