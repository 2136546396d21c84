"""Many runs that look for the best configuration, and train what they share only once. Nothing here knows Ray.

`schedules`, `axes`, `space` and `options` say what is searched, `search` in which order points are tried, `keys` (with
`numerics`) what decides the bits of a stage's end, `stages` keeps those ends, `tree` says which trial comes next, and
`fair` which are stopped. `trial` and `registry` are the state of a sweep, `attempt` is what happens around the run of a
trial, `plan` how a sweep starts or goes on, `folder` its files. `ranking`, `outcome` and `command` say what came out,
`console` and `picture` show it.
"""
