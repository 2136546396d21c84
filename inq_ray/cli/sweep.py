"""`inq-ray sweep` and jobs/sweep_schedules.py: many runs on Ray workers; stages that trials share are trained once.

The flags of `inq-ray quantize` set what all trials have in common. The same command continues a sweep that ended early.
Exit status 0: the sweep is finished and has a best trial. 1: no trial finished. 2: the sweep could not start.
130 or 143: it was interrupted.
"""

from inq_ray.cli.report import leave_report
from inq_ray.cli.status import complain, exit_status
from inq_ray.cluster.connection import check_fits_here
from inq_ray.cluster.tune.sweep import run_sweep
from inq_ray.sweep.command_line import SweepCommand, parse
from inq_ray.sweep.console import SweepConsole
from inq_ray.sweep.plan import plan_sweep
from inq_ray.sweep.space.options import space_of
from inq_ray.tracking.trackers import check_trackers
from inq_ray.training.config.unused import doubtful_options, unused_options


def main(arguments: list[str], program: str) -> int:
    """Run the command line.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.

    Returns:
        The exit status.
    """

    def command() -> int:
        status = execute(parse(arguments, program))
        if status:
            complain(program, "no trial finished")
        return status

    return exit_status(program, command, "; run the same command to continue")


def execute(command: SweepCommand) -> int:
    """Check the configuration, report unused options and notes on the data, then run the action."""
    console = SweepConsole()
    check_fits_here(command.search.workers(command.run).cluster, loader_workers=command.run.data.loader_workers)
    check_trackers(command.run.output.track)
    plan = plan_sweep(command.run, space_of(command.space), command.search)
    trials = plan.registry().trials
    doubtful = {
        line: None for config in (plan.base, *(trial.config for trial in trials)) for line in doubtful_options(config)
    }
    for note in (*unused_options(command.given, command.run, plan.info), *doubtful, *plan.notes):
        console.say(note)
    if command.action.dry_run:
        console.show_plan(plan, trials)
        return 0
    console.say(f"sweep {plan.base.output.name} in {plan.folder.path}")
    try:
        result = run_sweep(plan, console, verbose=command.action.verbose)
    finally:
        console.close()
    leave_report(plan.folder.path, console.say)
    return int(result.best is None)
