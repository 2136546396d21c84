"""Start of a run: begin, continue, or refuse, by what exists of it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from inq_ray.files.name_lock import name_held
from inq_ray.files.shown import shown
from inq_ray.files.whole import write_text
from inq_ray.storage.address import locate
from inq_ray.training.checkpoint.checkpoints import store_of
from inq_ray.training.checkpoint.position import TrainingPosition
from inq_ray.training.checkpoint.resume import (
    NOTHING,
    Decision,
    Refuse,
    Resume,
    Standing,
    Start,
    decide,
    look_at,
)
from inq_ray.training.checkpoint.store import Found
from inq_ray.training.config import RunConfig
from inq_ray.training.config.output import AUTO, NEVER, OutputConfig
from inq_ray.training.run_folder import RunFolder, check_writable


@contextlib.contextmanager
def held(config: RunConfig, tell: Callable[[str], None]) -> Iterator[None]:
    """Keep a run's name from being started elsewhere during a block, in its storage and that of its checkpoints.

    Args:
        config: Configuration with a name.
        tell: Called with a line if the storage has no locks.

    Raises:
        ValueError: A run of that name is running, or the folder of runs cannot be created.
    """
    folder = RunFolder.planned(config)
    with name_held(folder.path, folder.lock, "run", tell), checkpoints_held(config.output, folder.lock, "run", tell):
        yield


@contextlib.contextmanager
def checkpoints_held(
    output: OutputConfig, lock: Path, kind: Literal["run", "sweep"], tell: Callable[[str], None]
) -> Iterator[None]:
    """Keep a name from being started with the same --checkpoint-path, if set, and another --storage-path.

    Args:
        output: Options with a name.
        lock: Lock of the name at --storage-path, which is held.
        kind: What has the name.
        tell: Called with a line if the storage has no locks.

    Raises:
        ValueError: It is running, or the folder cannot be created.
    """
    assert output.name is not None
    location = None if output.checkpoint_path is None else locate(output.checkpoint_path, "--checkpoint-path")
    if location is None:
        yield
        return
    if not location.is_local:
        tell(f"{shown(location.name)} has no file locks: do not start two {kind}s of the same name at a time")
        yield
        return
    folder = Path(location.path) / output.name
    own = folder.with_name(f".{output.name}.lock")
    if own.resolve() == lock.resolve():  # --checkpoint-path is --storage-path
        yield
        return
    with name_held(folder, own, kind, tell, flag="--checkpoint-path"):
        yield


def check_storage(config: RunConfig) -> None:
    """Refuse a name used by anything but a run, and folders that are not writable; leaves nothing.

    Args:
        config: Configuration with a name.

    Raises:
        ValueError: Names the flag and the cause.
    """
    folder = RunFolder.planned(config)
    folder.check_usable()
    check_writable("--storage-path", folder.path.parent)
    check_checkpoint_path(config)


def check_checkpoint_path(config: RunConfig) -> None:
    """Refuse a --checkpoint-path that is a folder and not writable; leaves nothing.

    Args:
        config: Configuration with a name.

    Raises:
        ValueError: Names the flag and the cause.
    """
    checkpoints = store_of(config).location
    if config.output.checkpoint_path is not None and checkpoints.is_local:
        check_writable("--checkpoint-path", Path(checkpoints.path).parent)


def look(config: RunConfig, *, fingerprint: str | None) -> Decision:
    """Decide whether a run starts, continues, or is finished; writes nothing.

    Args:
        config: Configuration with a name.
        fingerprint: Fingerprint of the data.

    Raises:
        ValueError: It must not be started; one line with the remedy.
    """
    check_storage(config)
    folder = RunFolder.planned(config)
    standing = _standing(folder, config)
    mode = config.output.resume
    if standing.begun_from == mode and (standing.is_finished or standing.found.entry or standing.found.damaged):
        mode = AUTO  # the same command again, and the run has checkpoints of its own
    chosen = None if mode in (AUTO, NEVER) else look_at(mode)
    decision = decide(mode, standing, config, chosen=chosen, fingerprint=fingerprint)
    if isinstance(decision, Refuse):
        raise ValueError(decision.line)
    return decision


def prepare(config: RunConfig, decision: Decision) -> RunFolder:
    """Create the folders of a run that starts, deleting one that it overwrites; a run that continues has its own.

    Raises:
        ValueError: A folder cannot be created.
    """
    folder = RunFolder.planned(config)
    if isinstance(decision, Start):
        if not folder.config.is_file() or config.output.overwrite:  # else it stopped before its first checkpoint
            folder = RunFolder.create(config)
        store_of(config).discard_after(TrainingPosition(stage=0, epoch=0, step=0))
    elif not folder.config.is_file():
        folder = RunFolder.create(config)  # --resume PATH with a new name, or the folder was lost
    elif isinstance(decision, Resume) and _whole_config(folder) is None:
        try:
            write_text(folder.config, decision.config.to_json() + "\n")
        except OSError as error:
            raise ValueError(f"--storage-path {folder.path.parent}: cannot write there ({error})") from error
    _make_checkpoint_path(config)
    return folder


def _make_checkpoint_path(config: RunConfig) -> None:
    """Create the run's folder at --checkpoint-path, if it is a folder: a missing one later means a lost storage.

    Raises:
        ValueError: The folder cannot be created.
    """
    location = store_of(config).location
    if config.output.checkpoint_path is None or not location.is_local:
        return
    try:
        Path(location.path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--checkpoint-path {shown(config.output.checkpoint_path)}: cannot write there ({error.strerror or error})"
        ) from error


def _standing(folder: RunFolder, config: RunConfig) -> Standing:
    """Return what exists of the run."""
    assert config.output.name is not None
    is_finished = folder.is_finished
    found = NOTHING if config.output.overwrite or is_finished else store_of(config).newest_good()
    has_checkpoints = found.entry is not None or bool(found.damaged)
    if not folder.config.is_file():
        # Its folder is lost, perhaps with the machine, or was on another one; its checkpoints are elsewhere.
        saved = found.snapshot.facts.config if found.snapshot is not None else config
        return Standing(name=config.output.name, config=saved if has_checkpoints else None, found=found)
    if found is not NOTHING and not has_checkpoints:
        _check_none_elsewhere(folder, config)
    return Standing(
        name=config.output.name,
        config=_saved_config(folder, config, found),
        is_finished=is_finished,
        found=found,
        begun_from=None if config.output.overwrite else _begun_from(folder),
    )


def _begun_from(folder: RunFolder) -> str | None:
    """Return the checkpoint that --resume started the run from, according to the run's configuration file."""
    saved = _whole_config(folder)
    return None if saved is None or saved.output.resume in (AUTO, NEVER) else saved.output.resume


def _check_none_elsewhere(folder: RunFolder, config: RunConfig) -> None:
    """Refuse to begin a run again if its checkpoints are at the previous --checkpoint-path instead of the current one.

    Raises:
        ValueError: There are some; names where.
    """
    saved = _whole_config(folder)
    if saved is None:
        return
    there, here = store_of(saved.replace(output={"name": saved.output.name or config.output.name})), store_of(config)
    is_same = (there.location.root, there.location.path) == (here.location.root, here.location.path)
    if not is_same and there.positions():
        raise ValueError(
            f"--name {config.output.name}: this run has its checkpoints at {there.location.name}: pass the "
            "--checkpoint-path that it was started with, or begin again with --overwrite"
        )


def _saved_config(folder: RunFolder, config: RunConfig, found: Found) -> RunConfig:
    """Return the configuration of the run's start: from its checkpoint, which has digests, or else from its file.

    Raises:
        ValueError: There is no checkpoint, and the file is damaged.
    """
    if config.output.overwrite:
        return config  # the existing run is deleted in any case
    if found.snapshot is not None:
        return found.snapshot.facts.config
    try:
        return _read(folder.config)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"--name {config.output.name}: {folder.config} is damaged ({reason}): repair it, use another --name, or "
            "delete the run with --overwrite"
        ) from error


def _whole_config(folder: RunFolder) -> RunConfig | None:
    """Return the configuration in the run's file; None if it is damaged."""
    try:
        return _read(folder.config)
    except (OSError, ValueError):
        return None


def _read(path: Path) -> RunConfig:
    return RunConfig.from_json(path.read_text(encoding="utf-8"))
