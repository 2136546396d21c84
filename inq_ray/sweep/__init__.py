"""Many runs that look for the best configuration, and train what they share only once. Nothing here knows Ray.

command_line     flags of a sweep
plan             how a sweep starts or goes on: checked before anything is started
folder           the files of a sweep
incidents        what went wrong in the runs of trials
console          what a person sees; picture: the same as an image

space/           what is searched: schedules, axes, space, options; in which order: search_options, proposer
reuse/           what trials share: keys of stage ends, code_fingerprint, the stored stages, shared_prefixes
trials/          trial and registry: the state of a sweep; runner: what happens around the run of a trial, and its
report; early_stopping; ranking: what came out
"""
