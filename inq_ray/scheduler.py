"""INQScheduler: quantizes and freezes the next portion of the weights, identically on every rank."""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inq_ray.core.codebook import Rule, check_rule
from inq_ray.core.moments import Moments
from inq_ray.core.optim.sgd import SGD, unwrapped
from inq_ray.core.owners import Owner, find_orphan, find_owners, shown
from inq_ray.core.parameters import check_memory, grouped_params, is_of, named_params, state_of_new
from inq_ray.core.partition import check_strategy
from inq_ray.core.portions import check_portions
from inq_ray.core.stage import StageUpdate, apply, compensated, decide, num_changed, restore
from inq_ray.core.state import TensorState, check_entries
from inq_ray.distributed.agreement import ReplicaMismatchError, check_equal
from inq_ray.distributed.broadcast import StageError, broadcast_stage, deal, error_in_words
from inq_ray.distributed.digest import check_replicas, state_tensors
from inq_ray.distributed.moments import gathered
from inq_ray.distributed.replica import broadcast_tensors
from inq_ray.distributed.wire import Group, is_in_group, rank, world_size

__all__ = ["INQScheduler", "ReplicaMismatchError", "StageError"]

# Time to choose and quantize a weight, in units of the time that compensation needs per weight and input of its row.
_CHOICE_COST = 200


class INQScheduler:
    """Scheduler of the stages of Incremental Network Quantization (Zhou et al., ICLR 2017, algorithm 1).

    Each :meth:`step` partitions the live weights of every parameter with ``weight_bits``, quantizes the chosen ones,
    and freezes them; between steps the optimizer re-trains the others. Under torch.distributed every rank calls it: at
    the first stage all ranks get rank 0's weights; at each stage, every rank decides about its share of the tensors,
    and all apply all decisions and check that they have the same bits. "Rank" means a rank of ``process_group`` here
    and below.

    Args:
        optimizer: An :class:`inq_ray.SGD` whose groups have ``weight_bits``, such as those of
            :func:`inq_ray.param_groups`; or a trainer's wrapper with the SGD as its attribute ``optimizer``.
        iterative_steps: Accumulated portions, ascending, in (0, 1]. A list that ends below 1.0 leaves weights float.
        strategy: "pruning" freezes the largest weights first, "random" any.
        seed: Seed of the random strategy.
        codebook: Rule for the levels of a tensor: "max" uses its largest weight, as in the paper, "mse" the least
            squared error, for 2 bits.
        model: The network, wrapped or not, whose parameters must stay those of the optimizer; only a weak reference is
            kept. None = the network that :func:`inq_ray.param_groups` was called with.
        process_group: Ranks that hold the same network, and decide together. None = all ranks. Needed if groups
            of ranks train different networks, or different parts of one, as in pipeline parallelism.

    Attributes:
        portions: The accumulated portions.
        stage: Number of stages done.
        state: :class:`TensorState` by parameter name. Parameters added without names are named ``GROUP.INDEX``.

    Raises:
        ValueError: The portions, the strategy or the codebook are not allowed, the optimizer is not an SGD of this
            package, two parameters have the same name, one has a dtype that cannot be quantized or is not the model's,
            there is nothing to quantize, or this process is not in ``process_group``.

    Examples:
        >>> import inq_ray
        >>> model = nn.Linear(8, 4)
        >>> optimizer = inq_ray.SGD(inq_ray.param_groups(model, weight_bits=4), lr=0.1)
        >>> scheduler = INQScheduler(optimizer, [0.5, 1.0])
        >>> for _ in scheduler.portions:
        ...     scheduler.step()  # and train the live weights here
        >>> scheduler.stage, scheduler.state["weight"].num_frozen, scheduler.changed_weights()
        (2, 32, {})
    """

    def __init__(
        self,
        optimizer: SGD,
        iterative_steps: Sequence[float],
        strategy: str = "pruning",
        seed: int = 0,
        codebook: Rule = "max",
        *,
        model: nn.Module | None = None,
        process_group: Group = None,
    ) -> None:
        optimizer = unwrapped(optimizer)
        if not is_in_group(process_group):
            raise ValueError("this process is not in process_group: create INQScheduler with the group that it is in")
        self._group = process_group
        check_strategy(strategy)
        check_rule(codebook)
        self.optimizer = optimizer
        self.portions = check_portions(iterative_steps)
        self.strategy = strategy
        self.seed = seed
        self.codebook: Rule = codebook
        self.stage = 0
        self.state: dict[str, TensorState] = {}
        if model is not None and not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        given = {} if model is None else find_owners(dict(named_params(optimizer)), [model])
        self._owners: dict[str, Owner] = given
        self._add_new_parameters()
        if not self.state:
            raise ValueError(
                "no parameter group has weight_bits, so nothing would be quantized: use inq_ray.param_groups"
            )
        if model is not None and (strange := sorted(self.state.keys() - given.keys())):
            raise ValueError(f"{strange[0]!r} of the optimizer is not a parameter of the model passed to INQScheduler")
        if optimizer.is_copy and not self._owners:
            warnings.warn(
                "the optimizer is a copy (deepcopy, pickle), so the model with its parameters is unknown: copy model "
                "and optimizer together, and create INQScheduler(..., model=model)",
                stacklevel=2,
            )

    def step(self, moments: Moments | None = None) -> None:
        """Partition and quantize the weights of the next stage, on every rank.

        Frozen weights that something other than :class:`inq_ray.SGD` has changed are set to their levels again, with a
        warning.

        Args:
            moments: Second moments of the layers' inputs, from images of this rank and the current weights. Live
                weights are then adjusted so that the layers' outputs change least; in the last stage weights are
                rounded in turn, each taking earlier errors into account. Layers without moments are rounded to nearest.
                Either every rank passes moments, or none does.

        Raises:
            ValueError: All stages are done, a parameter's ``weight_bits`` has changed, a quantized parameter is no
                longer the model's, the optimizer has other frozen weights than this scheduler, or the moments contain
                no image or are of another network.
            StageError: Weights or moments are NaN or infinite, or a rank failed otherwise; names the tensor and the
                rank. Raised on every rank, and nothing is frozen.
            ReplicaMismatchError: Ranks have different stages or options, their weights have differed since the first
                stage, or differ after this one; names tensor or option, and ranks. Raised on every rank.
        """
        fault = self._orphan() or self._other_masks(self.state) or self._other_moments(moments)
        self._check_options(fault, moments)
        if fault:
            raise ValueError(fault.text)
        if self.stage == len(self.portions):
            raise ValueError(f"all {self.stage} stages of iterative_steps are done: there is nothing left to freeze")
        self._add_new_parameters()
        number = self.stage + 1
        self._take_weights_of_rank_0(number)
        updates = self._decide(moments)
        if changed := self.changed_weights():
            warnings.warn(f"{_in_numbers(changed)}; this stage sets them to their levels again", stacklevel=2)
        for name, param in self.quantized().items():
            apply(param, self.state[name], updates[name])
            self.optimizer.freeze(param, self.state[name].frozen)
        self.stage = number
        self.check(f"weights, masks or codes after stage {number}")

    def adopt(self, states: Mapping[str, TensorState]) -> None:
        """Use given states, such as those of :func:`inq_ray.quantize_`, as the next stage; every rank calls it.

        Args:
            states: States by parameter name, the same on every rank; the network's weights have their levels already.

        Raises:
            ValueError: See :meth:`load_state_dict`.
            ReplicaMismatchError: Weights, masks or codes differ between ranks; raised on every rank.
        """
        adopted = self.state_dict() | {
            "stage": self.stage + 1,
            "tensors": {name: state.state_dict() for name, state in states.items()},
        }
        self.load_state_dict(adopted)
        self.check(f"weights, masks or codes after stage {self.stage}")

    def check(self, what: str) -> None:
        """Stop every rank if weights, masks or codes are not bit for bit the same on all of them.

        Raises:
            ReplicaMismatchError: Names tensor and ranks.
        """
        if world_size(self._group) > 1:
            tensors = {**dict(named_params(self.optimizer)), **state_tensors(self.state)}
            check_replicas(tensors, stage=self.stage, what=what, group=self._group)

    def changed_weights(self) -> dict[str, int]:
        """Return the number of frozen weights that differ from their level, by parameter name; only if there are any.

        There are none unless something other than :class:`inq_ray.SGD` changed them: load_state_dict, a moving average,
        a second optimizer, clamping.
        """
        changed = {name: num_changed(param, self.state[name]) for name, param in self.quantized().items()}
        return {name: number for name, number in changed.items() if number}

    def quantized(self) -> dict[str, Tensor]:
        """Return the quantized parameters by name."""
        return {name: param for name, param in named_params(self.optimizer) if name in self.state}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, strings and tensors (frozen: bool, codes: uint8), by parameter name."""
        return {
            "stage": self.stage,
            "portions": list(self.portions),
            "strategy": self.strategy,
            "seed": self.seed,
            "codebook": self.codebook,
            "tensors": {name: state.state_dict() for name, state in self.state.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state: frozen weights get their levels, live weights are not changed.

        Portions, strategy, seed and codebook are those of the state, not those that the scheduler was created with.

        Raises:
            ValueError: It is not a state of this scheduler, or belongs to other parameters, or to another stage than
                the state loaded into the optimizer; or the optimizer's parameters are no longer the model's. Nothing is
                changed then.
        """
        check_entries("the state of an INQScheduler", state_dict, ("stage", "portions", "strategy", "seed", "tensors"))
        self._add_new_parameters()
        params = self.quantized()
        tensors = state_dict["tensors"]
        check_entries("the entry 'tensors' of the state", tensors, ())
        if tensors.keys() != params.keys():
            different = sorted(tensors.keys() ^ params.keys())
            raise ValueError(
                f"the state has different parameters: only one side has {', '.join(map(shown, different[:2]))}"
            )
        portions, stage = check_portions(state_dict["portions"]), state_dict["stage"]
        check_strategy(state_dict["strategy"])
        codebook = state_dict.get("codebook", "max")  # the only rule before there were two
        check_rule(codebook)
        if type(stage) is not int or not 0 <= stage <= len(portions):
            raise ValueError(f"the state has stage {stage}, of {len(portions)} stages")
        states = {name: self.state[name].loaded(name, param, tensors[name]) for name, param in params.items()}
        fault = self._orphan()
        if fault is None and self.optimizer.has_loaded_frozen:
            fault = self._other_masks(states)
        if fault:
            raise ValueError(fault.text)
        self.portions, self.stage = portions, stage
        self.strategy, self.seed, self.codebook = state_dict["strategy"], state_dict["seed"], codebook
        self.state = states
        for name, param in params.items():
            restore(param, states[name])
            self.optimizer.freeze(param, states[name].frozen)

    def __repr__(self) -> str:
        sizes = [(state.num_frozen, state.frozen.numel()) for state in self.state.values()]
        num_frozen, num_weights = (sum(each) for each in zip(*sizes, strict=True))
        return (
            f"INQScheduler(stage {self.stage} of {len(self.portions)}, portions {list(self.portions)}, "
            f"{self.strategy}, codebook {self.codebook}, {num_frozen:,} of {num_weights:,} weights frozen "
            f"({num_frozen / max(1, num_weights):.1%}) in {len(self.state)} tensors)"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owners": {}}  # a copy's parameters are another model's

    def __deepcopy__(self, memo: dict[int, Any]) -> "INQScheduler":
        copied = type(self).__new__(type(self))
        memo |= {id(self): copied, id(self._group): self._group}  # a process group cannot be copied
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def _orphan(self) -> "_Fault | None":
        """Return the parameter that the model no longer has, if any, and the remedy."""
        params = self.quantized()
        gone = next((name for name in params if name in self._owners and self._owners[name].is_gone()), None)
        if gone is not None:
            warnings.warn(
                f"the model with the optimizer's {shown(gone)} no longer exists: if you train another one, create "
                "SGD and INQScheduler again from inq_ray.param_groups(model)",
                stacklevel=3,
            )
        orphan = find_orphan(params, self._owners)
        if orphan is None:
            return None
        name, what = orphan
        return _Fault(
            name,
            f"{shown(name)} of the optimizer is no longer the model's: {what}; create SGD and INQScheduler again from "
            "inq_ray.param_groups(model), and load their states",
        )

    def _other_masks(self, states: Mapping[str, TensorState]) -> "_Fault | None":
        """Return a parameter whose frozen weights in the optimizer differ from these states, if any, and the remedy."""
        for name, param in self.quantized().items():
            frozen, state = self.optimizer.frozen(param), states[name]
            if not torch.equal(frozen, state.frozen.to(frozen.device)):
                return _Fault(
                    name,
                    f"the optimizer has {int(frozen.sum())} frozen weights of {shown(name)}, INQScheduler has "
                    f"{state.num_frozen}: they are from different stages; load the states of both that were saved "
                    "together (INQScheduler.state_dict() too), the optimizer's first",
                )
        return None

    def _other_moments(self, moments: Moments | None) -> "_Fault | None":
        """Return a parameter for which the moments are of another network's layer, if any, and the remedy."""
        layers = {} if moments is None else moments.layers
        for name, param in self.quantized().items():
            if name in layers and layers[name].weight is not param:
                text = f"the moments of {shown(name)} are of another network: pass the optimizer's model to Moments"
                return _Fault(name, text)
        return None

    def _add_new_parameters(self) -> None:
        counts = Counter(name for name, _ in named_params(self.optimizer))
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"the optimizer has several parameters named {', '.join(twice[:5])}")
        new: dict[str, Tensor] = {}
        for group, name, param in grouped_params(self.optimizer):
            num_bits, known = group["weight_bits"], self.state.get(name)
            if known is None:
                if num_bits is not None:
                    self.state[name] = state_of_new(name, param, group)
                    new[name] = param
            elif known.codebook.num_bits != num_bits:
                raise ValueError(
                    f"{name} is being quantized at {known.codebook.num_bits} bits, but its group's weight_bits is now "
                    f"{num_bits}: set it before INQScheduler is created"
                )
            elif not is_of(known, param, group):
                raise ValueError(
                    f"{name} is being quantized with other levels or another codebook_per than its group now has, "
                    f"{group['levels']!r} and {group['codebook_per']!r}: set them before INQScheduler is created"
                )
            elif known.frozen.device != param.device:  # the model was moved meanwhile
                known.frozen, known.codes = known.frozen.to(param.device), known.codes.to(param.device)
        if new:
            check_memory(dict(named_params(self.optimizer)), new)
        self._owners = {**find_owners(new), **self._owners}

    def _check_options(self, fault: "_Fault | None", moments: Moments | None) -> None:
        """Check that ranks agree on options and ``fault``, so that none raises or branches while others wait for it."""
        if world_size(self._group) == 1:
            return
        options = ("stage", "portions", "strategy", "seed", "codebook")
        entries = {f"INQScheduler.{option}": str(getattr(self, option)) for option in options}
        for group, name, param in grouped_params(self.optimizer):
            chosen = ", ".join(f"{option} {group[option]}" for option in ("weight_bits", "levels", "codebook_per"))
            entries[name] = f"{param.dtype} {list(param.shape)} {chosen}"
        if moments is not None:
            entries["moments"] = ", ".join(f"{name} {tuple(layer[2:])}" for name, layer in moments.layers.items())
        if fault:
            entries[fault.name] = fault.text
        check_equal(entries, stage=None, what="stages, options or parameters", group=self._group)

    def _take_weights_of_rank_0(self, number: int) -> None:
        if world_size(self._group) == 1:
            return
        params = dict(named_params(self.optimizer))
        if self.stage == 0:
            broadcast_tensors(params, group=self._group)
        else:
            what = f"weights at the start of stage {number}"
            check_replicas(params, stage=number, what=what, group=self._group)

    def _decide(self, moments: Moments | None) -> dict[str, StageUpdate]:
        """Return the decisions of all ranks: each decides about its share of the tensors, as one rank would about all.

        Raises:
            StageError: A rank failed; raised on every rank.
        """
        params = self.quantized()
        inputs = {} if moments is None else {name: layer.inputs for name, layer in moments.layers.items()}
        costs = {name: param.numel() * (_CHOICE_COST + inputs.get(name, 0)) for name, param in params.items()}
        deciders = deal(costs, world_size(self._group))
        found = {} if moments is None else gathered(moments, deciders, group=self._group)
        own = {name: param for name, param in params.items() if deciders[name] == rank(self._group)}
        updates: dict[str, StageUpdate] = {}
        cause: Exception | None = None
        words: str | None = None
        for name, param in own.items():
            try:
                updates[name] = self._decide_one(name, param, found.pop(name, None))
            except Exception as error:  # noqa: BLE001  # any error has to reach the ranks that wait for the decision
                cause, words = error, error_in_words(error, name)
                break
        try:
            return broadcast_stage(
                None if words else updates, self.state, words, stage=self.stage + 1, group=self._group
            )
        except StageError as shared:
            raise shared from cause

    def _decide_one(self, name: str, param: Tensor, moments: Tensor | None) -> StageUpdate:
        if moments is not None and not bool(moments.isfinite().all()):
            raise ValueError(f"{shown(name)}: its layer's inputs are NaN or infinite for the images of Moments")
        update = decide(
            param,
            self.state[name],
            self.portions[self.stage],
            name=name,
            strategy=self.strategy,
            seed=self.seed,
            stage=self.stage,
            rule=self.codebook,
        )
        return update if moments is None else compensated(param, self.state[name], update, moments)


class _Fault(NamedTuple):
    """Why no stage is possible: a parameter's name, and what is wrong with it."""

    name: str
    text: str


def _in_numbers(changed: Mapping[str, int]) -> str:
    """Return the message about frozen weights that differ from their levels, given by parameter name."""
    return (
        f"{sum(changed.values()):,} frozen weights, first in {shown(next(iter(changed)))}, differ from their levels: "
        "something other than inq_ray.SGD changed them, such as load_state_dict, an average or a second optimizer"
    )
