"""Checkpoints: all that a run needs to go on with the same bits, in files that say whether they are whole.

`position` is where in a run, `snapshot` turns a run's objects into tensors and facts and back, `compact` keeps frozen
weights as codes, `files` makes bytes with digests, `store` keeps them on this machine, a shared folder or an object
store and finds the newest whole one, `retention` says which stay, `writer` copies, returns and lets a thread write,
`share` gives rank 0's to all ranks, and `resume` decides whether to start, to go on, or to refuse.
"""
