"""Sweeps: many runs that search the best configuration, and train shared stages once. Nothing here uses Ray.

command_line     flags of a sweep
plan             start or continuation of a sweep: checked before anything is started
folder           files of a sweep
incidents        incidents in the runs of trials
console          console output; picture: the same as an image, with parallel_plot
space/           search space: schedules, axes, space, options; order: search_options, proposer
reuse/           shared stages: keys of stage ends, code_fingerprint, stored stages, shared_prefixes
trials/          trial and registry: state of a sweep; runner: what surrounds the run of a trial; report;
             early_stopping; ranking: results
"""
