"""`inq-ray quantize`, `inq-ray evaluate` and jobs/quantize_imagenet.py: one run on Ray workers, or one evaluation.

Exit status 0: every weight is frozen and verified. 1: the run failed. 2: the run could not start. 143 or 130: stopped
by SIGTERM or Ctrl-C, leaving a checkpoint.
"""

import dataclasses
import sys
from collections.abc import Sequence

from inq_ray.cli.report import leave_report
from inq_ray.cli.result import evaluation_words, split_result
from inq_ray.cli.status import complain, exit_status
from inq_ray.cluster.connection import check_fits_here
from inq_ray.cluster.failure import RunFailedError, RunRefusedError, RunStoppedError
from inq_ray.cluster.trainer import evaluate, quantize, tidy
from inq_ray.data.image_set import SourceInfo
from inq_ray.models.layers import describe
from inq_ray.tracking.trackers import check_trackers
from inq_ray.training.checkpoint.resume import Finished, Resume
from inq_ray.training.config import RunConfig
from inq_ray.training.config.unused import doubtful_options, unused_options
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.flags.parse import Command, parse
from inq_ray.training.flags.paths import with_absolute_paths
from inq_ray.training.flags.words import is_flag
from inq_ray.training.float_check import check_float_accuracy, doubt_of_given, warning_of_given
from inq_ray.training.report.console import Console
from inq_ray.training.report.images import describe_classes, describe_images
from inq_ray.training.report.json_log import JsonLog
from inq_ray.training.report.plan import plan
from inq_ray.training.run_folder import RunFolder, default_name
from inq_ray.training.start import check_storage, held, look
from inq_ray.training.task.check import check, check_given
from inq_ray.training.task.groups import float_notes


def main(arguments: list[str], program: str) -> int:
    """Run the command line.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.

    Returns:
        The exit status.
    """

    def command() -> int:
        try:
            return execute(parse(arguments, program))
        except RunRefusedError as error:
            complain(program, str(error))
            return 2
        except RunFailedError as error:
            complain(program, f"failed: {error}", 1000)
            return 1
        except RunStoppedError as stop:
            complain(program, str(stop))
            return 128 + stop.signal

    return exit_status(program, command)


def execute(command: Command) -> int:
    """Check the configuration, report unused options and notes on the data, then run the action."""
    is_unnamed = command.run.output.name is None
    command = _named(command)
    config, action = command.run, command.action
    console = Console(config)
    check_fits_here(config.cluster, loader_workers=config.data.loader_workers)
    chosen: list[str] = []
    if action.evaluate and not action.dry_run:
        accuracy, info = _evaluated(command)
        print(accuracy.in_words(info.num_classes))
        if (doubt := doubt_of_given(config, info, accuracy)) is not None:
            print(f"warning: {warning_of_given(doubt)}", file=sys.stderr)
        return 0
    if action.evaluate:
        check_given(config.network)
    check_storage(config)
    check_trackers(config.output.track)
    source, model = check(config, tell=chosen.append)
    fingerprint = source.info.fingerprint
    unused = unused_options(command.given, config, source.info)
    notes = [*unused, *doubtful_options(config), *source.notes, *chosen, *float_notes(config, model)]
    images = [
        *describe_classes(source.info),
        *describe_images(config.data, config.network, source.info, is_trained=True),
    ]
    if action.dry_run:
        for note in notes:
            console.say(note)
        look(config, fingerprint=fingerprint)
        for line in images:
            console.say(line)
        quantization = config.quantization
        layers = describe(model, config.num_bits, quantization.skip, config.layer_bits, quantization.include)
        console.show_plan(plan(config, source.info, model), layers)
        if action.evaluate:
            measure(config, console, source.info, verbose=action.verbose)
        else:
            if config.network.weights is not None and not config.float_epochs:
                console.say("accuracy of the weights not measured: add --evaluate to do so, on Ray workers")
            console.say("dry run: nothing was started, no run was written")
        return 0
    log = JsonLog(config.output.name) if action.log_format == "json" else console
    for note in notes:
        log.say(note)
    if is_unnamed:  # the default name has the time: the same command would start another run
        log.say(f"to continue this run if it is interrupted, repeat the command with --name {config.output.name}")
    with held(config, log.say):
        return run(config, log, fingerprint, images, verbose=action.verbose)


def evaluated(arguments: Sequence[str], program: str) -> tuple[Accuracy, SourceInfo]:
    """Return the accuracy of a network, and facts about the data; notes are printed to stderr.

    Args:
        arguments: Flags of `inq-ray evaluate`.
        program: Program name for messages.

    Raises:
        ValueError: A flag, the data, the network or its weights are invalid; the message is one line.
        RunFailedError: A worker failed.
    """
    command = _named(parse([*arguments, "--evaluate"], program))
    check_fits_here(command.run.cluster, loader_workers=command.run.data.loader_workers)
    return _evaluated(command)


def _evaluated(command: Command) -> tuple[Accuracy, SourceInfo]:
    config, chosen = command.run, list[str]()
    source, _ = check(config, evaluate=True, tell=chosen.append)
    unused = unused_options(command.given, config, source.info, is_evaluation=True)
    images = [
        *describe_classes(source.info),
        *describe_images(config.data, config.network, source.info, is_trained=False),
    ]
    for note in (*unused, *source.notes, *chosen, *images):
        print(note, file=sys.stderr)
    return measured(config, Console(config, stderr=True), source.info, verbose=command.action.verbose), source.info


def _named(command: Command) -> Command:
    """Return a command with absolute paths and a name for its run."""
    config = with_absolute_paths(command.run)
    name = config.output.name or default_name(config.network.arch, config.num_bits)
    return dataclasses.replace(command, run=config.replace(output={"name": name}))


def measured(config: RunConfig, console: Console, info: SourceInfo, *, verbose: bool) -> Accuracy:
    """Return the accuracy of the network, measured on Ray workers; waits are shown."""
    try:
        return evaluate(config, fingerprint=info.fingerprint, verbose=verbose, reporter=console)
    finally:
        console.close()


def measure(config: RunConfig, console: Console, info: SourceInfo, *, verbose: bool) -> None:
    """Measure the float network for a dry run, on Ray workers.

    Raises:
        FloatAccuracyError: A run would not continue with it.
    """
    accuracy = measured(config, console, info, verbose=verbose)
    console.say(f"float {accuracy.in_words(info.num_classes)}")
    doubt = doubt_of_given(config, info, accuracy)
    if doubt is not None:
        check_float_accuracy(config, doubt)
        console.say(f"warning: {warning_of_given(doubt)}")
    console.say("dry run: only the float network was measured, no run was written")


def run(config: RunConfig, console: Console | JsonLog, fingerprint: str, images: list[str], *, verbose: bool) -> int:
    """Start a run, or continue it if it is not finished."""
    decision = look(config, fingerprint=fingerprint)
    if isinstance(decision, Finished):
        tidy(config)
        console.say(decision.line)
        return 0
    try:
        console.start()
        for line in images:
            console.say(line)
        if isinstance(decision, Resume):
            for note in decision.notes:
                console.say(note)
        summary = quantize(config, console, decision=decision, fingerprint=fingerprint, verbose=verbose)
    except RunRefusedError:
        raise
    except RunFailedError:
        leave_report(RunFolder.planned(config).path, console.say)
        raise
    finally:
        console.close()
    folder = RunFolder.planned(config).path
    leave_report(folder, console.say)
    console.show_summary(summary, str(folder))
    return 0


def main_evaluate(arguments: list[str], program: str) -> int:
    """Measure the accuracy of a network, or of a result if its name is the first argument; see :func:`main`."""
    words = list(arguments)

    def command() -> int:
        if words and not is_flag(words[0]):
            words[:] = evaluation_words(*split_result(words))
        return 0

    return exit_status(program, command) or main([*words, "--evaluate"], program)
