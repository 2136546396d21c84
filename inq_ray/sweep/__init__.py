"""Many runs that look for the best configuration, and train what they share only once. Nothing here knows Ray.

`schedules`, `axes` and `space` say what is searched, `search` in which order points are tried, `keys` what decides the
bits of a stage's end, `stages` keeps those ends, `tree` says which trial comes next, `fair` which of them are stopped,
`board` is the state of a sweep, `record` its files, `ranking` what came out, `table`, `report` and `picture` show it.
"""
