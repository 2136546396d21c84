"""Checkpoints: all that a run needs to go on with the same bits, in files that say whether they are whole.

`position` is where in a run, `facts` all but tensors, `snapshot` both, taken from a run's objects, and `restore` puts
them back. `compact` keeps frozen weights as codes, `validate` checks that tensors are those of the facts, `files` makes
bytes with digests and reads them, `store` keeps them on this machine, a shared folder or an object store and finds
the newest whole one, `retention` says which stay. `writer` copies, returns and lets a thread write, `clock` says when
one is due, `broadcast` gives rank 0's to all ranks, `checkpoints` is all that for a run, and `resume` decides whether
to start, to go on, or to refuse.
"""
