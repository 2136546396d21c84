"""An option's properties, declared with its field. All other lists of options are derived from them."""

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from inq_ray.data.image_set import SourceInfo
from inq_ray.files.shown import quoted

Check = Callable[[str, Any], Any]
"""Takes a flag and its value; returns the value to store, or raises a ValueError that names the flag."""


class Affects(enum.Enum):
    """What changes with an option's value, and so whether a resumed run may change it."""

    RESULT = enum.auto()
    """The result: a resumed run keeps the value."""
    ROUNDING = enum.auto()
    """The bits of the result, but not the method: a resumed run may change the value, and reports it."""
    NOTHING = enum.auto()
    """Nothing in the result: a resumed run may change the value, and sweeps share stages for any value."""


class Phase(enum.IntEnum):
    """First phase in which an option has an effect."""

    ALWAYS = enum.auto()
    """In evaluation too."""
    TRAINING = enum.auto()
    """In training: not with --evaluate."""
    STAGES = enum.auto()
    """In stages: neither before the first stage nor with --plain."""


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A case in which an option has no effect.

    Attributes:
        when: Returns whether this is the case with a configuration: the whole one that has the option.
        data: Returns whether this is the case with the data; None = with any data.
        why: Reason, which follows the flag in the message, such as "has no effect without --distill".
        is_refused: Whether the run is refused; else the case is reported.
    """

    when: Callable[[Any], bool] = lambda _: True
    data: Callable[[SourceInfo], bool] | None = None
    why: str | Callable[[Any, SourceInfo | None], str]
    is_refused: bool = False

    def reason(self, config: Any, info: SourceInfo | None) -> str:
        """Return the reason, which follows the flag in the message."""
        return self.why if isinstance(self.why, str) else self.why(config, info)


@dataclass(frozen=True, kw_only=True)
class Option:
    """Properties of an option, as metadata of its dataclass field.

    Attributes:
        help: Text for --help: a noun, unit, range, and the meaning of the default.
        check: Refuses values, or returns them in another form.
        choices: Allowed values, unless the type lists them.
        aliases: Other flags for it.
        is_first: Whether --help shows it; --help-all shows all options.
        affects: What changes with its value.
        phase: First phase in which it has an effect.
        in_stage_key: Whether the value is part of the keys by which sweeps find shared stages, if it affects anything;
            False: its consequence is, such as the weights instead of their path.
        sweep: Whether trials of a sweep may differ in it; a text = no, with the reason and the remedy.
        fits_all: Whether every allowed value works with every network and all data, so that sweeps need not check it.
        replaces: Names of the section's other options that set the same thing; this option's flag resets them.
        path: Whether a value is a name rather than a path or an address; None = the option is not a path.
        sees: Whether it determines the images that accuracy is measured on, or their preprocessing; suggested commands
            repeat it.
        unused: Cases in which it has no effect.
    """

    help: str
    check: Check | None = None
    choices: tuple[Any, ...] | None = None
    aliases: tuple[str, ...] = ()
    is_first: bool = False
    affects: Affects = Affects.RESULT
    phase: Phase = Phase.ALWAYS
    in_stage_key: bool = True
    sweep: bool | str = True
    fits_all: bool = False
    replaces: tuple[str, ...] = ()
    path: Callable[[str], bool] | None = None
    sees: bool = False
    unused: tuple[Unused, ...] = ()


def option(default: Any, help: str, check: Check | None = None, **known: Any) -> Any:  # noqa: A002
    """Return a dataclass field with this default; ``known`` are further attributes of :class:`Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help=help, check=check, **known)})


@dataclass(frozen=True, kw_only=True)
class Declared:
    """An option and its place in a configuration.

    Attributes:
        name: Dotted name, such as "training.lr".
        type: Annotation of its field.
        default: Default value.
        option: Its properties.
    """

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def field(self) -> str:
        """Name of its field, such as "lr"."""
        return self.name.rpartition(".")[2]

    @property
    def section(self) -> str:
        """Name of its section, such as "training"; empty at the top level."""
        return self.name.rpartition(".")[0]

    @property
    def flag(self) -> str:
        """Its flag, such as "--lr"."""
        return flag_of(self.field)

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """Allowed values, if they can be listed."""
        kind = self.type
        if typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        return typing.get_args(kind) if typing.get_origin(kind) is Literal else self.option.choices

    def of(self, config: Any) -> Any:
        """Return its value in a configuration."""
        return getattr(getattr(config, self.section) if self.section else config, self.field)

    def unused(self, config: Any, info: SourceInfo | None) -> Unused | None:
        """Return the case in which it has no effect, if there is one.

        Args:
            config: The whole configuration.
            info: Facts about the data; None = unknown, and cases that depend on them are skipped.
        """
        for case in self.option.unused:
            of_data = case.data is None or (info is not None and case.data(info))
            if of_data and case.when(config):
                return case
        return None


def flag_of(field: str) -> str:
    """Return the flag of a field, such as "--lr-each" for "lr_each"."""
    return f"--{field.replace('_', '-')}"


def declared(config: Any) -> dict[str, Declared]:
    """Return all options of a configuration, or of its class, by dotted name, in order.

    Args:
        config: A dataclass whose fields are options, or sections of options.
    """
    return {each.name: each for each in _declared(config, "")}


def _declared(config: Any, section: str) -> Iterator[Declared]:
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.type):
            inner = field.type if isinstance(config, type) else getattr(config, field.name)
            yield from _declared(inner, f"{section}{field.name}.")
        else:
            known = field.metadata["option"]
            name = f"{section}{field.name}"
            yield Declared(name=name, type=field.type, default=field.default, option=known)


def check_options(section: Any) -> None:
    """Check the values of a section during construction, and convert them to the stored form.

    Raises:
        ValueError: A value is not allowed; names the flag, the value and the allowed ones.
    """
    for each in _declared(section, ""):
        value = each.of(section)
        if value is None and _may_be_none(each.type):
            continue
        if each.choices is not None:
            check_choices(each.flag, value, each.choices)
        if each.option.check is not None:
            object.__setattr__(section, each.field, each.option.check(each.flag, value))


def check_choices(what: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Check a value, or each of several, of an option with a list of choices.

    Raises:
        ValueError: A value is not one of them.
    """
    for entry in value if isinstance(value, tuple | list) else (value,):
        if entry not in choices:
            raise ValueError(f"{what} must be one of {', '.join(choices)}, got {quoted(entry)}")


def _may_be_none(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) and types.NoneType in typing.get_args(kind)


def check_refused(config: Any, info: SourceInfo | None = None) -> None:
    """Refuse options without effect if the result would not be what the user expects.

    Args:
        config: The whole configuration.
        info: Facts about the data; None = not known yet.

    Raises:
        ValueError: Names the flag.
    """
    for each in declared(config).values():
        case = each.unused(config, info)
        if case is not None and case.is_refused and each.of(config) != each.default:
            raise ValueError(f"{each.flag} {case.reason(config, info)}")
