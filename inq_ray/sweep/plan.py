"""Plan of a sweep, checked before anything starts; and continuation of an earlier one."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inq_ray.data.image_set import SourceInfo
from inq_ray.files.shown import one_line, shown
from inq_ray.storage.address import locate
from inq_ray.sweep.folder import SweepFolder
from inq_ray.sweep.reuse.keys import Origin, stage_keys
from inq_ray.sweep.reuse.stages import StageStore, discard_checkpoints
from inq_ray.sweep.space.proposer import make_proposer
from inq_ray.sweep.space.search_options import SearchOptions
from inq_ray.sweep.space.space import BITS, LAYER_BITS, Point, Space, configured
from inq_ray.sweep.state import SavedSweep, read_state
from inq_ray.sweep.trials.registry import TRIAL, TrialRegistry
from inq_ray.sweep.trials.runner import TrialSpec
from inq_ray.sweep.trials.trial import Trial
from inq_ray.training.checkpoint.resume import differences
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, declared
from inq_ray.training.flags.paths import with_absolute_paths
from inq_ray.training.report.images import describe_classes, describe_images
from inq_ray.training.report.next_command import tagged_arch
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.start import check_checkpoint_path, checkpoints_held
from inq_ray.training.task.build import open_data, preprocessing_of
from inq_ray.training.task.check import check
from inq_ray.training.task.groups import float_notes

# Held-out fraction of the training images without --holdout: a tenth, up to a maximum.
_HELD_OUT = 10
_MOST_HELD_OUT = 10_000


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A checked sweep.

    Attributes:
        base: Configuration common to all trials; its output names storage and sweep.
        space: Search space.
        options: Search options.
        info: Facts about the data.
        notes: Lines about the data, for the user.
        origin: Common starting point of all trials.
    """

    base: RunConfig
    space: Space
    options: SearchOptions
    info: SourceInfo
    notes: tuple[str, ...]
    origin: Origin

    @property
    def folder(self) -> SweepFolder:
        """Folder of the sweep."""
        return SweepFolder.planned(self.base)

    @contextlib.contextmanager
    def held(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Keep other sweeps of this name out of its folder and its --checkpoint-path during a block.

        Args:
            tell: Called with a line if the storage has no locks.

        Raises:
            ValueError: Another sweep of this name is running, or a folder cannot be created.
        """
        with self.folder.held(tell), checkpoints_held(self.base.output, self.folder.lock, "sweep", tell):
            yield

    def configured(self, name: str, point: Point) -> RunConfig:
        """Return the configuration of a trial, whose run and checkpoints are in the sweep's folders."""
        checkpoints = self.base.output.checkpoint_path
        output = {
            "storage_path": str(self.folder.path),
            "name": name,
            "overwrite": False,
            "checkpoint_path": None if checkpoints is None else f"{checkpoints.rstrip('/')}/{self.base.output.name}",
        }
        return configured(self.base, point).replace(output=output)

    def discard_checkpoints(self) -> None:
        """Delete what trials of an earlier sweep of this name left at --checkpoint-path.

        Raises:
            ValueError: The storage fails.
        """
        output = self.base.output
        if output.checkpoint_path is None:
            return
        assert output.name is not None
        there = locate(output.checkpoint_path, "--checkpoint-path").join(output.name)
        names = [there.relative(info) for info in there.list()] if there.exists() else []
        for name in filter(TRIAL.fullmatch, names):
            discard_checkpoints(self.configured(name, {}))

    def registry(self, state: Mapping[str, Any] | None = None) -> TrialRegistry:
        """Return the registry at the start.

        Args:
            state: State from :meth:`state`, if the sweep continues.

        Raises:
            ValueError: The state is not valid, belongs to a sweep for something else, or the search proposes other
                points now.
        """
        options = self.options
        registry = TrialRegistry(
            make_proposer(self.space, options),
            options,
            configured=self.configured,
            keys=lambda config: stage_keys(config, self.origin) if options.reuse else {},
            stored=StageStore(self.folder.stages).keys(),
        )
        if state is not None:
            self._check_same(state, self._read(state))
            registry.restore(state["log"], state["trials"])
        registry.plan()
        return registry

    def spec(self, registry: TrialRegistry, trial: Trial) -> TrialSpec:
        """Return the spec of a trial that the registry has chosen."""
        return TrialSpec(
            config=trial.config,
            keys=trial.keys,
            starts=registry.starts_of(trial),
            wanted=frozenset(registry.wanted_of(trial)),
            stages=str(self.folder.stages),
            fingerprint=self.origin.fingerprint,
        )

    def state(self, registry: TrialRegistry, **more: Any) -> dict[str, Any]:
        """Return everything that :meth:`registry` needs to continue, with additional values."""
        return {**self._asked(), **registry.to_json(), **more}

    def _asked(self) -> dict[str, Any]:
        axes = {name: {"kind": type(axis).__name__, **dataclasses.asdict(axis)} for name, axis in
                self.space.axes.items()}  # fmt: skip
        return {
            "base": dataclasses.asdict(self.base),
            "space": axes,
            "options": dataclasses.asdict(self.options),
            "origin": dataclasses.asdict(self.origin),
        }

    def _read(self, state: Mapping[str, Any]) -> SavedSweep:
        """Return the state with types checked."""
        try:
            return read_state(state)
        except ValueError as error:
            raise ValueError(
                f"{shown(self.folder.state)} is damaged: {one_line(error, 150)}: repair it, or delete the sweep with "
                "--overwrite"
            ) from error

    def _check_same(self, state: Mapping[str, Any], saved: SavedSweep) -> None:
        """Refuse to continue a sweep for something else."""
        asked = json.loads(json.dumps(self._asked()))
        different = [each.name for each in differences(saved.base, self.base)]
        different += [f"space.{name}" for name in state["space"].keys() | asked["space"].keys()
                      if state["space"].get(name) != asked["space"].get(name)]  # fmt: skip
        searching = [each for each in declared(self.options).values() if each.option.affects is not Affects.NOTHING]
        different += [each.name for each in searching
                      if state["options"].get(each.name) != asked["options"][each.name]]  # fmt: skip
        different += [name for name in ("weights", "teacher", "code", "fingerprint")
                      if state["origin"].get(name) != asked["origin"][name]]  # fmt: skip
        if different:
            names = shown(", ".join(sorted(different)))
            raise ValueError(
                f"--name {self.base.output.name}: the sweep was started with other {names}: set them as before, "
                "use another --name, or delete it with --overwrite"
            )


def plan_sweep(run: RunConfig, space: Space, options: SearchOptions) -> SweepPlan:
    """Check a sweep before anything starts; decodes no image.

    Args:
        run: Configuration common to all trials, from flags.
        space: Search space.
        options: Search options.

    Raises:
        ValueError: One line that names what was given and what to do.
    """
    base = options.workers(with_absolute_paths(run))
    _check_base(base)
    if options.objective == "top1-bits" and BITS not in space.axes:
        raise ValueError("--objective top1-bits minimizes bits too, but they are not searched: add --bits")
    if options.objective == "top1-bits" and LAYER_BITS in space.axes:
        raise ValueError(f"--objective top1-bits counts --bits alone: leave it out, or {LAYER_BITS} of --space")
    space.check(base)
    make_proposer(space, options)  # raises if it is not possible
    first, *others = space.samples()
    if base.data.holdout == 0:
        base = _with_holdout(base, open_data(configured(base, first)).info)
    chosen: list[str] = []
    source, model = check(configured(base, first), tell=chosen.append)
    for point in others:
        check(configured(base, point))
    if base.output.name is None:
        base = base.replace(output={"name": default_name(base, space, options)})
    sees_alike = not any(name.startswith("data.") for name in space.axes)
    images = describe_images(base.data, base.network, source.info, is_trained=True) if sees_alike else []
    plan = SweepPlan(
        base=base,
        space=space,
        options=options,
        info=source.info,
        notes=(
            *source.notes,
            *chosen,
            *float_notes(configured(base, first), model),
            *describe_classes(source.info),
            *images,
        ),
        origin=Origin.of(base, model, source.info),
    )
    plan.folder.check_usable()
    check_checkpoint_path(plan.base)
    return plan


def _check_base(base: RunConfig) -> None:
    """Refuse options that runs may have, but trials may not."""
    if base.plain:
        raise ValueError("--plain has no stages, so there is nothing to sweep over: leave it out")
    if base.output.resume != "auto":
        raise ValueError("--resume is for single runs: run the same command to continue a sweep")
    workers = base.cluster.workers
    if workers.least != workers.most:
        raise ValueError(
            f"--num-workers {workers}: trials are compared, and share stages, at one number of workers only"
        )


def _with_holdout(base: RunConfig, info: SourceInfo) -> RunConfig:
    """Return the base with held-out images, by default a tenth; the data then need no test set."""
    if info.num_train == 0:
        return base  # too few images, which is refused elsewhere
    return base.replace(data={"holdout": max(1, min(info.num_train // _HELD_OUT, _MOST_HELD_OUT))})


def default_name(base: RunConfig, space: Space, options: SearchOptions) -> str:
    """Return a name that is the same for the same command, which therefore continues its sweep."""
    asked = [dataclasses.asdict(dataclasses.replace(base, output=RunConfig().output)), repr(space.axes), repr(options)]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    network = base.network.arch.replace("/", "-").replace(":", "-").replace(".", "-")
    return f"sweep-{network[:60]}-{digest}"


def config_on_test_set(plan: SweepPlan, trial: Trial) -> RunConfig | None:
    """Return the configuration that measures a trial's result on the test set; None if there is no test set.

    The network gets the same preprocessing as in the trial.
    """
    if plan.info.num_test == 0:
        return None
    config = trial.config
    folder = RunFolder.planned(config)
    sizes = {}
    if plan.info.is_streamed:
        seen = preprocessing_of(config.data, config.network)
        sizes = {name: getattr(seen, name) for name in ("crop_size", "resize_size", "interpolation")}
    return config.replace(
        data={"holdout": 0, **sizes},
        network={
            "arch": tagged_arch(config.network),
            "weights": str(folder.result / "model.safetensors"),
            "replace_head": False,
        },
    )


def recipe_of(trial: Trial) -> RunConfig:
    """Return the trial's configuration without its place in the sweep."""
    unsaid = RunConfig().output
    return trial.config.replace(
        output={"storage_path": unsaid.storage_path, "name": None, "checkpoint_path": unsaid.checkpoint_path}
    )
