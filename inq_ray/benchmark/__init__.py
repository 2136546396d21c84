"""`inq-ray benchmark`: what a run costs on a user's own machine or cluster, and what is worth it there."""
