"""Tests mirror inq_ray/; `tests.ranks` runs a function on several ranks."""
