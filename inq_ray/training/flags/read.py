"""From the arguments of a command line to the values of the typed options, by tyro."""

import contextlib
import io
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import tyro

from inq_ray.files.shown import one_line
from inq_ray.training.config.option import Declared
from inq_ray.training.flags.words import check_words

_Flags = TypeVar("_Flags")

_HELP = ("-h", "--help", "--help-all")


def read_flags(
    arguments: Sequence[str],
    options: Iterable[Declared],
    *,
    program: str,
    what: str,
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the typed values by dotted name; options that were not typed are not included.

    Args:
        arguments: Words of the command line.
        options: All options of the command; field names are unique.
        program: Name of the command, for --help.
        what: Description of the command, with an example, for --help.
        defaults: Returns the options' values by dotted name, given the typed ones; for --help.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the requested help.
    """
    by_field = {each.field: each for each in options}
    asked = [word for word in arguments if word not in _HELP]
    check_words(asked, by_field.values())
    kind = _flags_type({field: _annotated(each, {}) for field, each in by_field.items()}, what)
    typed = _in_one_line(lambda: tyro.cli(kind, args=asked))
    values = {by_field[field].name: value for field, value in typed.items()}
    if len(asked) < len(arguments):
        help_type = _help_type(by_field.values(), what, defaults(values), is_whole="--help-all" in arguments)
        tyro.cli(help_type, prog=program, args=["--help"])
    return values


def _in_one_line(parse: Callable[[], _Flags]) -> _Flags:
    """Return the result of tyro's parser; its error becomes one line instead of a box.

    Raises:
        ValueError: A flag or its value is not allowed.
        SystemExit: After printing the requested help.
    """
    with _plain_output() as output:
        try:
            return parse()
        except SystemExit as stop:
            if stop.code:
                raise ValueError(one_line(_message(output.getvalue()))) from None
    return parse()  # prints the help, with the terminal's width and colors, and exits


def _flags_type(kinds: Mapping[str, Any], what: str) -> Any:
    """Return a TypedDict of flags, or of groups of flags, all optional."""
    return types.new_class(
        "Flags", (TypedDict,), {"total": False}, lambda body: body.update(__doc__=what, __annotations__=kinds)
    )


def _help_type(options: Collection[Declared], what: str, values: Mapping[str, Any], *, is_whole: bool) -> Any:
    """Return the type from which --help is printed: the most important options, or all of them by topic."""
    topics: dict[str, dict[str, Any]] = {}
    for each in options:
        if is_whole or each.option.is_first:
            topics.setdefault(each.section if is_whole else "", {})[each.field] = _annotated(each, values)
    if not is_whole:
        more = "" if all(each.option.is_first for each in options) else "\n--help-all lists all flags."
        return _flags_type(topics[""], what + more)
    own = topics.pop("", {})
    # A command may have a flag with the name of a section, such as --output.
    kinds = {f"run_{topic}" if topic in own else topic: _flags_type(flags, "") for topic, flags in topics.items()}
    whole: Any = Annotated[_flags_type(own | kinds, what), tyro.conf.OmitArgPrefixes]
    return whole


def _annotated(each: Declared, values: Mapping[str, Any]) -> Any:
    kind, choices = each.type, each.choices
    is_tuple = typing.get_origin(kind) is tuple
    if choices is not None:
        one: Any = Literal.__getitem__(tuple(choices))
        kind = tuple[one, ...] if is_tuple else one
    if kind == bool | None:
        kind = bool  # --flip or --no-flip; None if neither is typed
    metavar = None
    if isinstance(kind, types.UnionType):
        metavar = "|".join(one.__name__.upper() for one in typing.get_args(kind) if one is not types.NoneType)
    value = values.get(each.name, each.default)
    shown = " ".join(map(str, value)) if is_tuple else str(value)
    hint = "" if value is None or value is False or shown == "" else f"(default: {shown})"
    aliases = list(each.option.aliases)
    argument = tyro.conf.arg(help=each.option.help, aliases=aliases, metavar=metavar, help_behavior_hint=hint)
    return Annotated[kind, argument]


@contextlib.contextmanager
def _plain_output() -> Iterator[io.StringIO]:
    """Capture printed text. tyro sees no terminal, so there are no colors, and an unlimited width."""
    output = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield output
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _message(box: str) -> str:
    """Return the message in tyro's box without borders, with the flags it suggests."""
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]  # the first line is the border with the title
    message: list[str] = []
    suggested: list[str] | None = None
    for line in lines:
        if not line.strip("-─╰╯+") or line.startswith("For full helptext"):
            continue
        if line.startswith("Argument helptext"):
            break
        if line.startswith("Perhaps you meant"):
            suggested = []
        elif suggested is None:
            message.append(line)
        elif line.startswith("-"):
            suggested.append(next(word for word in line.split() if word.startswith("--")).rstrip(","))
    text = " ".join(message)
    checked = re.match(r"Error parsing \w+(\.\w+)?: ", text)
    if checked:
        return text[checked.end() :]  # messages of our own checks are complete
    hint = f"; did you mean {' or '.join(suggested)}?" if suggested else ""
    return f"{text}{hint} (--help-all lists all flags)"
