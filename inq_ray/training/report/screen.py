"""A terminal, or a file: lines that stay, wrapped between words, and below them one that is live."""

import datetime as dt
import textwrap
import threading
import time
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.text import Text

# Without a terminal: of tables, and of lines about progress, which whoever follows a log sees on a terminal.
_PLAIN_WIDTH = 120
_PLAIN_LINE_WIDTH = 80
# Of the labels before results.
_LABEL_WIDTH = 10
_STILL_WAITING_SECONDS = 30.0


class Screen:
    """Standard output, or standard error, as it is: a terminal of some width, or a file or pipe.

    Args:
        stderr: Whether it is standard error.

    Attributes:
        is_terminal: Whether somebody may be looking.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._rich = Console(highlight=False, soft_wrap=False, stderr=stderr)
        self.is_terminal = self._rich.is_terminal
        if not self.is_terminal:
            self._rich = Console(highlight=False, width=_PLAIN_WIDTH, stderr=stderr)
        self._live: Live | None = None
        self._renderable: Callable[[], ConsoleRenderable] = lambda: Text("")
        self._wait: _Wait | None = None
        self.last_line = time.monotonic()

    @property
    def line_width(self) -> int:
        """Columns that a line about progress may have."""
        return self._rich.width if self.is_terminal else _PLAIN_LINE_WIDTH

    def say(self, line: str, *, indent: int = 2) -> None:
        """Print a line that stays; on a terminal it is wrapped between words, and a long path stays whole.

        Args:
            line: The line.
            indent: Blanks before what follows its first line.
        """
        self._print(wrapped(line, self._rich.width, indent) if self.is_terminal else [line])

    def say_line(self, parts: Sequence[tuple[str, int]]) -> None:
        """Print a line about progress that stays: as much of it as fits, see :func:`fitting`."""
        self._print([fitting(parts, self.line_width)])

    def say_result(self, label: str, value: str, *, is_whole: bool = False) -> None:
        """Print a value after its label.

        Args:
            label: A word.
            value: Prose, or a path or command.
            is_whole: Whether it stays in one piece, to be copied: on a terminal on lines of its own if it is long.
        """
        line = f"{label:{_LABEL_WIDTH}}{value}"
        if is_whole and self.is_terminal and cell_len(line) > self._rich.width:
            self._print([label, value])
        elif is_whole:
            self._print([line])
        else:
            self.say(line, indent=_LABEL_WIDTH)

    def show_table(self, table: ConsoleRenderable) -> None:
        """Print a table that stays."""
        self._rich.print(table)
        self.last_line = time.monotonic()

    def show_live(self, renderable: Callable[[], ConsoleRenderable]) -> None:
        """Show below all lines, on a terminal, what a function returns; it is asked again several times a second."""
        self._end_wait()
        self._show_live(renderable)

    def wait_for(self, what: str) -> None:
        """Show that this is waited for, and since when, until :meth:`show_live` or :meth:`end_wait`.

        Without a terminal it is a line now and then.
        """
        self._end_wait()
        began, since = time.monotonic(), dt.datetime.now().astimezone().strftime("%H:%M:%S")

        def line() -> str:
            return f"{what}: {duration(time.monotonic() - began)}, since {since}"

        if self.is_terminal:
            self._show_live(lambda: one_line(line()))
        self._wait = _Wait(None if self.is_terminal else lambda: self._print([line()]))

    def end_wait(self) -> None:
        """Show no longer that something is waited for."""
        if self._wait is not None:
            self._end_wait()
            self._renderable = lambda: Text("")

    def close(self) -> None:
        """End what is live."""
        self._end_wait()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show_live(self, renderable: Callable[[], ConsoleRenderable]) -> None:
        self._renderable = renderable
        if self.is_terminal and self._live is None:
            self._live = Live(console=self._rich, get_renderable=self._current, refresh_per_second=4, transient=True)
            self._live.start()

    def _current(self) -> ConsoleRenderable:
        return self._renderable()

    def _end_wait(self) -> None:
        if self._wait is not None:
            self._wait.end()
            self._wait = None

    def _print(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._rich.print(Text(line), soft_wrap=True)
        self.last_line = time.monotonic()


class _Wait:
    """Calls a function every half minute until it is ended.

    Args:
        tell: The function; None = there is none.
    """

    def __init__(self, tell: Callable[[], None] | None) -> None:
        self._is_over = threading.Event()
        if tell is not None:
            threading.Thread(target=self._work, args=(tell,), name="inq_ray-wait", daemon=True).start()

    def end(self) -> None:
        """Call it no more."""
        self._is_over.set()

    def _work(self, tell: Callable[[], None]) -> None:
        while not self._is_over.wait(_STILL_WAITING_SECONDS):
            tell()


def one_line(line: str) -> Text:
    """Return a line that is cut at the terminal's width."""
    return Text(line, no_wrap=True, overflow="ellipsis")


def wrapped(line: str, width: int, indent: int) -> list[str]:
    """Return a line in parts of at most so many columns, broken between words; words that are longer stay whole."""
    if cell_len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [line]


def fitting(parts: Sequence[tuple[str, int]], width: int) -> str:
    """Return the parts of a line that fit into so many columns, in their order.

    Args:
        parts: Texts, each with its rank: those of 0 are always there, of the others the lowest are tried first.
        width: Columns.
    """

    def line(places: set[int]) -> str:
        return "  ".join(parts[place][0] for place in sorted(places)).rstrip()

    kept = {place for place, (_, rank) in enumerate(parts) if rank == 0}
    for place in sorted(set(range(len(parts))) - kept, key=lambda place: parts[place][1]):
        if parts[place][0] and cell_len(line(kept | {place})) <= width:
            kept.add(place)
    return line(kept)


def duration(seconds: float) -> str:
    """Return a time as 1:02:03, of days as 2 d 1:02."""
    days, rest = divmod(round(seconds), 86_400)
    text = str(dt.timedelta(seconds=rest))
    return f"{days} d {text[:-3]}" if days else text
