"""Decision of a start: begin, continue, or refuse, by `--resume auto|never|PATH` and existing checkpoints."""

import platform
from dataclasses import dataclass
from typing import Any

import torch

from inq_ray import __version__
from inq_ray.files.shown import counted, shown
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.files import DamagedError, is_checkpoint, open_checkpoint
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.store import Damaged, Found
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, Declared, declared
from inq_ray.training.config.output import AUTO, NEVER
from inq_ray.training.flags.command import given_of

# Most characters of the list of differing options.
_MOST_SAID = 160

NOTHING = Found(None, None, ())


@dataclass(frozen=True, kw_only=True)
class Standing:
    """State of a run before it starts.

    Attributes:
        name: Name of the run.
        config: Configuration that it was started with; None if there is no run of that name.
        is_finished: Whether its summary is written.
        found: Its checkpoints.
        begun_from: Checkpoint that --resume started it from; None if it was started otherwise.
    """

    name: str
    config: RunConfig | None = None
    is_finished: bool = False
    found: Found = NOTHING
    begun_from: str | None = None


@dataclass(frozen=True)
class Start:
    """Start from the beginning; an existing run is discarded."""


@dataclass(frozen=True)
class Resume:
    """Continue from a checkpoint.

    Attributes:
        entry: Entry of the checkpoint.
        config: Configuration that its run was started with.
        notes: Lines for the user: damaged checkpoints, and changes that affect the result.
    """

    entry: Entry
    config: RunConfig
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """There is nothing left to do.

    Attributes:
        line: Line for the user.
    """

    line: str


@dataclass(frozen=True)
class Refuse:
    """The run must not be started.

    Attributes:
        line: What is wrong, and the remedy.
    """

    line: str


Decision = Start | Resume | Finished | Refuse


def decide(
    mode: str, standing: Standing, config: RunConfig, *, chosen: Found | None = None, fingerprint: str | None = None
) -> Decision:
    """Decide what a start of a run does, without reading or writing.

    Args:
        mode: "auto" continues an existing run; "never" starts a new one; a path or address continues that checkpoint.
        standing: State of the run of this name.
        config: Configuration of this start.
        chosen: Checkpoint at the path, by :func:`look_at`; None with "auto" and "never".
        fingerprint: Fingerprint of the data; None if unknown. Data with the same fingerprint may have another path.
    """
    assert (chosen is None) == (mode in (AUTO, NEVER)), f"{mode=} {chosen=}"
    if config.output.overwrite:
        if chosen is None:
            return Start()
        return Refuse("--overwrite deletes the run that --resume continues: leave one of them out")
    if chosen is not None:
        return _from_chosen(mode, standing, config, chosen, fingerprint)
    if standing.config is None:
        return Start()
    if mode == NEVER:
        state = "a finished" if standing.is_finished else "an unfinished"
        return Refuse(
            f"--name {standing.name}: {state} run of that name exists, and --resume never starts a new one: use "
            "another --name, or delete it with --overwrite"
        )
    return _go_on(standing, standing.config, config, fingerprint)


def look_at(path: str) -> Found:
    """Return the checkpoint at a path or address given to --resume.

    Raises:
        ValueError: There is no checkpoint, or the storage fails.
    """
    location = locate(path, "--resume")
    if not is_checkpoint(location):
        raise ValueError(
            f"--resume {shown(path)}: not a checkpoint (a folder with manifest.json), and neither auto nor never"
        )
    try:
        return Found(*open_checkpoint(location), ())
    except DamagedError as error:
        raise ValueError(f"--resume {shown(path)}: this checkpoint is damaged: {shown(error)}; use another") from error


def differences(saved: RunConfig, config: RunConfig) -> list[Declared]:
    """Return the differing options that affect the result or its bits."""
    options = [each for each in declared(config).values() if each.option.affects is not Affects.NOTHING]
    return [each for each in options if each.of(saved) != each.of(config)]


def check_own(snapshot: Snapshot, config: RunConfig, fingerprint: str | None, where: str) -> None:
    """Refuse a checkpoint of another run that writes to the same place.

    Args:
        snapshot: Snapshot of the checkpoint.
        config: Configuration of the run that reads it.
        fingerprint: Fingerprint of its data; None if unknown.
        where: Location of the checkpoint.

    Raises:
        ValueError: The checkpoint belongs to another run; names the options.
    """
    lines = _refused(f"{shown(where)}: {snapshot.position.name}", snapshot.facts.config, config, snapshot, fingerprint)
    if lines is not None:
        raise ValueError(
            f"{lines}: another run writes its checkpoints there; give each its own --name or --checkpoint-path"
        )


def _go_on(standing: Standing, saved: RunConfig, config: RunConfig, fingerprint: str | None) -> Decision:
    """Decide with --resume auto and an existing run."""
    found = standing.found
    lines = _refused(f"run {standing.name}", saved, config, found.snapshot, fingerprint)
    if lines is not None:
        return Refuse(f"{lines}; set them as before, use another --name, or delete it with --overwrite")
    if standing.is_finished:
        return Finished(f"run {standing.name} is finished: there is nothing left to do")
    if found.entry is None and found.damaged:
        newest = found.damaged[0]
        return Refuse(
            f"run {standing.name}: all {len(found.damaged)} checkpoint(s) are damaged, {newest.position.name}: "
            f"{newest.reason}; repair the storage, or start again with --overwrite"
        )
    if found.entry is None or found.snapshot is None:  # stopped before its first checkpoint
        if standing.begun_from is None:
            return Start()
        return Refuse(
            f"run {standing.name} has no checkpoint of its own yet: pass --resume {shown(standing.begun_from)}, from "
            "which it was started, or start again with --overwrite"
        )
    return Resume(found.entry, found.snapshot.facts.config, _notes(found.damaged, found.snapshot, config))


def _from_chosen(path: str, standing: Standing, config: RunConfig, chosen: Found, fingerprint: str | None) -> Decision:
    """Decide with --resume PATH."""
    assert chosen.entry is not None
    assert chosen.snapshot is not None
    if standing.is_finished:
        return Refuse(f"--name {standing.name}: that run is finished: use another --name for --resume {shown(path)}")
    saved = chosen.snapshot.facts.config
    is_begun_by_it = standing.begun_from == path
    if standing.config is not None and standing.config.output.name != saved.output.name and not is_begun_by_it:
        return Refuse(
            f"--name {standing.name}: an unfinished run of that name exists, and --resume {shown(path)} belongs to run "
            f"{saved.output.name}: use another --name, or continue with --resume auto"
        )
    newest = standing.found.entry
    if newest is not None and newest.position > chosen.entry.position:
        return Refuse(
            f"--resume {shown(path)}: run {standing.name} has later checkpoints, up to {newest.position.name}: use "
            "another --name to continue from this one, or continue from the last with --resume auto"
        )
    lines = _refused(f"--resume {shown(path)}: it", saved, config, chosen.snapshot, fingerprint)
    if lines is not None:
        return Refuse(f"{lines}; set them as before")
    return Resume(chosen.entry, saved, _notes((), chosen.snapshot, config))


def _refused(
    what: str, saved: RunConfig, config: RunConfig, snapshot: Snapshot | None, fingerprint: str | None
) -> str | None:
    """Return the message if the run would become a different one; else None."""
    different: dict[str, tuple[Any, Any]] = {
        each.name: (each.of(saved), each.of(config))
        for each in differences(saved, config)
        if each.option.affects is Affects.RESULT
    }
    was = None if snapshot is None else snapshot.facts.fingerprint
    if was is not None and fingerprint is not None:
        different.pop("data.data", None)  # the same images may have another path
        if was != fingerprint:
            different["data.data"] = (f"{saved.data.data} as it was", f"{config.data.data} as it is")
    if not different:
        return None
    typed = {"data.data", *given_of(saved), *given_of(config)}  # options that follow from a recipe are not named
    different = {name: pair for name, pair in different.items() if name in typed} or different
    pairs = [f"{_words(declared(config)[name], old)} (now {_text(new)})" for name, (old, new) in different.items()]
    said = [pair for index, pair in enumerate(pairs) if index == 0 or len(", ".join(pairs[: index + 1])) <= _MOST_SAID]
    rest = f" and {counted(len(pairs) - len(said), 'other option')}" if len(said) < len(pairs) else ""
    return f"{what} was made with {', '.join(said)}{rest}"


def _notes(damaged: tuple[Damaged, ...], snapshot: Snapshot, config: RunConfig) -> tuple[str, ...]:
    """Return the lines to print when a run continues."""
    lines = [f"{each.position.name} is damaged and ignored: {each.reason}" for each in damaged]
    saved = snapshot.facts.config
    changed = [
        f"{each.flag} {_text(each.of(saved))} changed to {_text(each.of(config))}"
        for each in differences(saved, config)
        if each.option.affects is Affects.ROUNDING
    ]
    versions = {"inq_ray": __version__, "torch": torch.__version__, "python": platform.python_version()}
    changed += [
        f"{name} {was} changed to {versions[name]}"
        for name, was in snapshot.facts.versions.items()
        if was != versions[name]
    ]
    if changed:
        lines.append(f"{', '.join(changed)}: the result may differ in bits from an uninterrupted run")
    return tuple(lines)


def _words(option: Declared, value: Any) -> str:
    """Return an option with its value, as typed."""
    if isinstance(value, bool):
        return option.flag if value else f"without {option.flag}"
    return f"{option.flag} {_text(value)}"


def _text(value: Any) -> str:
    """Return a value as typed."""
    if value is None or value == ():
        return "not given"
    if isinstance(value, bool):
        return "given" if value else "not given"
    return shown(" ".join(map(str, value)) if isinstance(value, tuple) else value, 60)
