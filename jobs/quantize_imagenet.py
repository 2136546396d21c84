"""Quantize a trained network to powers of two on Ray workers.

    python jobs/quantize_imagenet.py                          handwritten digits, nothing else needed
    python jobs/quantize_imagenet.py --data DIR --arch NAME --weights FILE --weight-bits 5
    ray job submit --working-dir . -- python jobs/quantize_imagenet.py

Exit status 0: every weight is frozen and verified. 1: the run failed. 2: it could not start as asked. 143 or 130:
stopped by SIGTERM or Ctrl-C, with a checkpoint left.
"""

import dataclasses
import signal
import sys

from inq_ray.cluster.connection import check_fits_here
from inq_ray.cluster.failure import RunFailedError, RunStoppedError
from inq_ray.cluster.leaving import leave
from inq_ray.cluster.trainer import evaluate, quantize
from inq_ray.models.layers import describe
from inq_ray.tracking.trackers import check_trackers
from inq_ray.training.checkpoint.resume import Finished, Resume
from inq_ray.training.config import RunConfig
from inq_ray.training.config.unused import unused_options
from inq_ray.training.flags.parse import Command, parse
from inq_ray.training.flags.paths import with_absolute_paths
from inq_ray.training.report.console import Console
from inq_ray.training.report.json_log import JsonLog
from inq_ray.training.report.plan import plan
from inq_ray.training.run_folder import RunFolder, default_name
from inq_ray.training.start import held, look
from inq_ray.training.task.check import check, float_notes


def main(arguments: list[str]) -> int:
    """Run the job; return its exit status."""
    try:
        command = parse(arguments)
        config = with_absolute_paths(command.run)
        config = config.replace(
            output={"name": config.output.name or default_name(config.network.arch, config.num_bits)}
        )
        return execute(dataclasses.replace(command, run=config))
    except (ValueError, ConnectionError, TimeoutError) as error:
        print(f"quantize_imagenet: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"quantize_imagenet: failed: {error}", file=sys.stderr)
        return 1
    except RunStoppedError as stop:
        print(f"quantize_imagenet: {stop}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("quantize_imagenet: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as end:
        if end.code != signal.SIGTERM:  # the status with which Ray's own handler exits, where ours is not set
            raise
        print("quantize_imagenet: ended by SIGTERM", file=sys.stderr)
        return 128 + signal.SIGTERM


def execute(command: Command) -> int:
    """Check, then does what is asked for; reports unused options and notes on the data first."""
    config, action = command.run, command.action
    console = Console(config)
    check_fits_here(config.cluster)
    if action.evaluate:
        source, _ = check(config, evaluate=True)
        unused = unused_options(command.given, config, source.info, is_evaluation=True)
        for note in (*unused, *source.notes):
            print(note, file=sys.stderr)
        accuracy = evaluate(config, fingerprint=source.info.fingerprint, verbose=action.verbose)
        print(f"top-1 {accuracy.top1:.2f} %, top-5 {accuracy.top5:.2f} % of {accuracy.num_samples:,} images")
        return 0
    RunFolder.planned(config).check_usable()
    check_trackers(config.output.track)
    source, model = check(config)
    fingerprint = source.info.fingerprint
    notes = [*unused_options(command.given, config, source.info), *source.notes, *float_notes(config, model)]
    if action.dry_run:
        for note in notes:
            console.say(note)
        look(config, fingerprint=fingerprint)
        layers = describe(model, config.num_bits, config.quantization.skip, include=config.quantization.include)
        console.show_plan(plan(config, source.info, model), layers)
        return 0
    log = JsonLog(config.output.name) if action.log_format == "json" else console
    for note in notes:
        log.say(note)
    with held(config, log.say):
        return run(config, log, fingerprint, verbose=action.verbose)


def run(config: RunConfig, console: Console | JsonLog, fingerprint: str, *, verbose: bool) -> int:
    """Start a run, or goes on with it, if it is not finished."""
    decision = look(config, fingerprint=fingerprint)
    if isinstance(decision, Finished):
        console.say(decision.line)
        return 0
    try:
        console.start()
        if isinstance(decision, Resume):
            for note in decision.notes:
                console.say(note)
        summary = quantize(config, console, decision=decision, fingerprint=fingerprint, verbose=verbose)
    finally:
        console.close()
    console.show_summary(summary, str(RunFolder.planned(config).path))
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
