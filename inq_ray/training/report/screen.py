"""A terminal or a file: permanent lines, wrapped between words, and on a terminal a live part below them."""

import datetime as dt
import textwrap
import threading
import time
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.text import Text

# Columns without a terminal: of tables, and of progress lines, which users may follow in a log on a terminal.
_PLAIN_WIDTH = 120
_PLAIN_LINE_WIDTH = 80
# Columns of the labels before results.
_LABEL_WIDTH = 10
_STILL_WAITING_SECONDS = 30.0


class Screen:
    """Standard output or standard error, which may be a terminal, a file or a pipe.

    Args:
        stderr: Whether to use standard error.

    Attributes:
        is_terminal: Whether it is a terminal.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # Texts are as they are: names and patterns may have brackets, which rich would take for markup.
        self._rich = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
        self.is_terminal = self._rich.is_terminal
        if not self.is_terminal:
            self._rich = Console(highlight=False, markup=False, emoji=False, width=_PLAIN_WIDTH, stderr=stderr)
        self._live: Live | None = None
        self._renderable: Callable[[], ConsoleRenderable] = lambda: Text("")
        self._wait: _Wait | None = None
        self.last_line = time.monotonic()

    @property
    def line_width(self) -> int:
        """Maximum columns of a progress line."""
        return self._rich.width if self.is_terminal else _PLAIN_LINE_WIDTH

    def say(self, line: str, *, indent: int = 2) -> None:
        """Print a permanent line, on a terminal wrapped between words; long paths are not broken.

        Args:
            line: The line.
            indent: Number of spaces before continuation lines.
        """
        self._print(wrapped(line, self._rich.width, indent) if self.is_terminal else [line])

    def say_line(self, parts: Sequence[tuple[str, int]]) -> None:
        """Print a permanent progress line: the parts that fit, see :func:`fitting`."""
        self._print([fitting(parts, self.line_width)])

    def say_result(self, label: str, value: str, *, is_whole: bool = False) -> None:
        """Print a value after its label.

        Args:
            label: A word.
            value: Prose, or a path or command.
            is_whole: Whether it must not be broken, so that it can be copied; a long value gets a line of its own.
        """
        line = f"{label:{_LABEL_WIDTH}}{value}"
        if is_whole and self.is_terminal and cell_len(line) > self._rich.width:
            self._print([label, value])
        elif is_whole:
            self._print([line])
        else:
            self.say(line, indent=_LABEL_WIDTH)

    def show_table(self, table: ConsoleRenderable) -> None:
        """Print a table permanently."""
        self._rich.print(table)
        self.last_line = time.monotonic()

    def show_live(self, renderable: Callable[[], ConsoleRenderable]) -> None:
        """Show a function's result below all lines on a terminal; it is called several times per second."""
        self._end_wait()
        self._show_live(renderable)

    def wait_for(self, what: str) -> None:
        """Show what the program waits for, and since when, until :meth:`show_live` or :meth:`end_wait`.

        Without a terminal, print a line from time to time.
        """
        self._end_wait()
        began, since = time.monotonic(), dt.datetime.now().astimezone().strftime("%H:%M:%S")

        def line() -> str:
            return f"{what}: {duration(time.monotonic() - began)}, since {since}"

        if self.is_terminal:
            self._show_live(lambda: one_line(line()))
        self._wait = _Wait(None if self.is_terminal else lambda: self._print([line()]))

    def end_wait(self) -> None:
        """Stop showing a wait."""
        if self._wait is not None:
            self._end_wait()
            self._renderable = lambda: Text("")

    def close(self) -> None:
        """End the live part."""
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
        """Stop calling it."""
        self._is_over.set()

    def _work(self, tell: Callable[[], None]) -> None:
        while not self._is_over.wait(_STILL_WAITING_SECONDS):
            tell()


def one_line(line: str) -> Text:
    """Return a line, cut at the terminal's width."""
    return Text(line, no_wrap=True, overflow="ellipsis")


def wrapped(line: str, width: int, indent: int) -> list[str]:
    """Return a line in parts of at most `width` columns, broken between words; longer words are not broken."""
    if cell_len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [line]


def fitting(parts: Sequence[tuple[str, int]], width: int) -> str:
    """Return the parts of a line that fit into a number of columns, in order.

    Args:
        parts: Texts, each with its rank: parts of rank 0 are always included, others by ascending rank if they fit.
        width: Number of columns.
    """

    def line(places: set[int]) -> str:
        return "  ".join(parts[place][0] for place in sorted(places)).rstrip()

    kept = {place for place, (_, rank) in enumerate(parts) if rank == 0}
    for place in sorted(set(range(len(parts))) - kept, key=lambda place: parts[place][1]):
        if parts[place][0] and cell_len(line(kept | {place})) <= width:
            kept.add(place)
    return line(kept)


def duration(seconds: float) -> str:
    """Return a duration such as 1:02:03, or 2 d 1:02."""
    days, rest = divmod(round(seconds), 86_400)
    text = str(dt.timedelta(seconds=rest))
    return f"{days} d {text[:-3]}" if days else text
