"""Start, go on, or refuse: what `--resume auto|never|PATH` means, decided from what is there."""

import platform
from dataclasses import dataclass
from typing import Any

import torch

from inq_ray import __version__
from inq_ray.files.shown import shown
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.files import DamagedError, is_checkpoint, read_checkpoint
from inq_ray.training.checkpoint.retention import Entry
from inq_ray.training.checkpoint.snapshot import Snapshot
from inq_ray.training.checkpoint.store import Damaged, Found
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, Declared, declared
from inq_ray.training.config.output import AUTO, NEVER
from inq_ray.training.flags.command import given_of

# Of the options that differ, in characters.
_MOST_SAID = 160

NOTHING = Found(None, None, ())


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What there is of a run before it starts.

    Attributes:
        name: of the run.
        config: with which it was started; None where there is no run of that name.
        is_finished: whether its summary is written.
        found: its checkpoints.
        begun_from: the checkpoint by which --resume began it; None where it began otherwise.
    """

    name: str
    config: RunConfig | None = None
    is_finished: bool = False
    found: Found = NOTHING
    begun_from: str | None = None


@dataclass(frozen=True)
class Start:
    """Start from the beginning; what is there, if anything, is given up."""


@dataclass(frozen=True)
class Resume:
    """Go on from a checkpoint.

    Attributes:
        entry: the checkpoint, in short.
        config: with which its run was started.
        notes: lines to say: what is damaged, and what makes the result another.
    """

    entry: Entry
    config: RunConfig
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """There is nothing to do.

    Attributes:
        line: says so.
    """

    line: str


@dataclass(frozen=True)
class Refuse:
    """It is not to be started.

    Attributes:
        line: what is wrong, and what to do.
    """

    line: str


Decision = Start | Resume | Finished | Refuse


def decide(
    mode: str, standing: Standing, config: RunConfig, *, chosen: Found | None = None, fingerprint: str | None = None
) -> Decision:
    """Decides what a start of a run does. Nothing is read or written.

    Args:
        mode: "auto" goes on with what is there; "never" starts; a path or address goes on from that checkpoint.
        standing: what is there of the run of this name.
        config: of this start.
        chosen: what lies at the path, by :func:`look_at`; None with "auto" and "never".
        fingerprint: of the data; None where it is not known. Data of the same fingerprint may lie elsewhere.
    """
    assert (chosen is None) == (mode in (AUTO, NEVER)), f"{mode=} {chosen=}"
    if config.output.overwrite:
        if chosen is None:
            return Start()
        return Refuse("--overwrite deletes the run that --resume goes on with: give one of them")
    if chosen is not None:
        return _from_chosen(mode, standing, config, chosen, fingerprint)
    if standing.config is None:
        return Start()
    if mode == NEVER:
        state = "a finished" if standing.is_finished else "an unfinished"
        return Refuse(
            f"--name {standing.name}: there is {state} run of that name, and --resume never starts a new one: take "
            "another --name, or delete it by --overwrite"
        )
    return _go_on(standing, standing.config, config, fingerprint)


def look_at(path: str) -> Found:
    """What lies at a path or address given to --resume.

    Raises:
        ValueError: there is no checkpoint, or the storage fails.
    """
    location = locate(path, "--resume")
    if not is_checkpoint(location):
        raise ValueError(
            f"--resume {shown(path)}: no checkpoint (folder with manifest.json) is there, nor is it auto or never"
        )
    try:
        return Found(*read_checkpoint(location), ())
    except DamagedError as error:
        raise ValueError(f"--resume {shown(path)}: this checkpoint is damaged: {shown(error)}; take another") from error


def differences(saved: RunConfig, config: RunConfig) -> list[Declared]:
    """Return the options that differ, of those that affect anything."""
    options = [each for each in declared(config).values() if each.option.affects is not Affects.NOTHING]
    return [each for each in options if each.of(saved) != each.of(config)]


def check_own(snapshot: Snapshot, config: RunConfig, fingerprint: str | None, where: str) -> None:
    """Refuse a checkpoint of another run, which writes to the same place.

    Args:
        snapshot: of the checkpoint.
        config: of the run that reads it.
        fingerprint: of its data; None where it is not known.
        where: the checkpoint lies.

    Raises:
        ValueError: the checkpoint would make the run another one; names the options.
    """
    lines = _refused(f"{shown(where)}: {snapshot.position.name}", snapshot.facts.config, config, snapshot, fingerprint)
    if lines is not None:
        raise ValueError(f"{lines}: another run writes its checkpoints there; give each a --name or --checkpoint-path")


def _go_on(standing: Standing, saved: RunConfig, config: RunConfig, fingerprint: str | None) -> Decision:
    """With --resume auto and a run that is there."""
    found = standing.found
    lines = _refused(f"run {standing.name}", saved, config, found.snapshot, fingerprint)
    if lines is not None:
        return Refuse(f"{lines}; set them as they were, take another --name, or delete it by --overwrite")
    if standing.is_finished:
        return Finished(f"run {standing.name} is finished: there is nothing left to do")
    if found.entry is None and found.damaged:
        newest = found.damaged[0]
        return Refuse(
            f"run {standing.name}: none of its {len(found.damaged)} checkpoints is whole, {newest.position.name}: "
            f"{newest.reason}; mend the storage, or start again by --overwrite"
        )
    if found.entry is None or found.snapshot is None:  # it ended before its first checkpoint
        if standing.begun_from is None:
            return Start()
        return Refuse(
            f"run {standing.name} has no checkpoint of its own yet: give --resume {shown(standing.begun_from)}, by "
            "which it was begun, or start again by --overwrite"
        )
    return Resume(found.entry, found.snapshot.facts.config, _notes(found.damaged, found.snapshot, config))


def _from_chosen(path: str, standing: Standing, config: RunConfig, chosen: Found, fingerprint: str | None) -> Decision:
    """With --resume PATH."""
    assert chosen.entry is not None
    assert chosen.snapshot is not None
    if standing.is_finished:
        return Refuse(f"--name {standing.name}: that run is finished: take another --name for --resume {shown(path)}")
    saved = chosen.snapshot.facts.config
    is_begun_by_it = standing.begun_from == path
    if standing.config is not None and standing.config.output.name != saved.output.name and not is_begun_by_it:
        return Refuse(
            f"--name {standing.name}: there is an unfinished run of that name, and --resume {shown(path)} is of run "
            f"{saved.output.name}: take another --name, or go on by --resume auto"
        )
    newest = standing.found.entry
    if newest is not None and newest.position > chosen.entry.position:
        return Refuse(
            f"--resume {shown(path)}: run {standing.name} has later checkpoints, up to {newest.position.name}: take "
            "another --name to go on from this one, or go on from the last by --resume auto"
        )
    lines = _refused(f"--resume {shown(path)}: it", saved, config, chosen.snapshot, fingerprint)
    if lines is not None:
        return Refuse(f"{lines}; set them as they were")
    return Resume(chosen.entry, saved, _notes((), chosen.snapshot, config))


def _refused(
    what: str, saved: RunConfig, config: RunConfig, snapshot: Snapshot | None, fingerprint: str | None
) -> str | None:
    """What to say where the run would be another one; None where it would not."""
    different: dict[str, tuple[Any, Any]] = {
        each.name: (each.of(saved), each.of(config))
        for each in differences(saved, config)
        if each.option.affects is Affects.RESULT
    }
    was = None if snapshot is None else snapshot.facts.fingerprint
    if was is not None and fingerprint is not None:
        different.pop("data.data", None)  # the same images may lie elsewhere
        if was != fingerprint:
            different["data.data"] = (f"{saved.data.data} as it was", f"{config.data.data} as it is")
    if not different:
        return None
    typed = {"data.data", *given_of(saved), *given_of(config)}  # what a recipe makes of another option is not said
    different = {name: pair for name, pair in different.items() if name in typed} or different
    pairs = [f"{_words(declared(config)[name], old)} (now {_text(new)})" for name, (old, new) in different.items()]
    said = [pair for index, pair in enumerate(pairs) if index == 0 or len(", ".join(pairs[: index + 1])) <= _MOST_SAID]
    rest = f" and {len(pairs) - len(said)} other options" if len(said) < len(pairs) else ""
    return f"{what} was made with {', '.join(said)}{rest}"


def _notes(damaged: tuple[Damaged, ...], snapshot: Snapshot, config: RunConfig) -> tuple[str, ...]:
    """What to say when going on."""
    lines = [f"{each.position.name} is damaged and left out: {each.reason}" for each in damaged]
    saved = snapshot.facts.config
    changed = [
        f"{each.flag} {_text(each.of(saved))} became {_text(each.of(config))}"
        for each in differences(saved, config)
        if each.option.affects is Affects.ROUNDING
    ]
    versions = {"inq_ray": __version__, "torch": torch.__version__, "python": platform.python_version()}
    changed += [
        f"{name} {was} became {versions[name]}"
        for name, was in snapshot.facts.versions.items()
        if was != versions[name]
    ]
    if changed:
        lines.append(f"{', '.join(changed)}: the result may not have the bits of an undisturbed run")
    return tuple(lines)


def _words(option: Declared, value: Any) -> str:
    """Return an option with its value, as it is typed."""
    if isinstance(value, bool):
        return option.flag if value else f"without {option.flag}"
    return f"{option.flag} {_text(value)}"


def _text(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or value == ():
        return "not given"
    if isinstance(value, bool):
        return "given" if value else "not given"
    return shown(" ".join(map(str, value)) if isinstance(value, tuple) else value, 60)
