"""Reads the Markdown of the checkout: its links, its fenced blocks, the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>(?:(?!-->).)+) -->\s*\Z", re.DOTALL)
_LINKS = (
    re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)"),
    re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.MULTILINE),
    re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\""),
)
_PATH = re.compile(r"(?<![\w/.-])(?:\.ci|benchmarks|inq_ray|jobs|tests)/[\w./-]*(?P<open>[*{<])?")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its language, its text, the line it begins on, and why it is not run, if the document says so."""

    language: str
    text: str
    line: int
    not_run: str | None


@dataclass(frozen=True, kw_only=True)
class Document:
    """A Markdown file."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> "Document":
        return cls(path=path, text=path.read_text())

    def blocks(self) -> Iterator[Block]:
        for match in _FENCE.finditer(self.text):
            before = self.text[: match.start()]
            not_run = _NOT_RUN.search(before)
            yield Block(
                language=match["language"],
                text=match["text"],
                line=before.count("\n") + 2,
                not_run=" ".join(not_run["reason"].split()) if not_run else None,
            )

    def stray_fences(self) -> list[str]:
        """Lines that look like a fence and are none for `blocks`: indented, of tildes, or never closed."""
        return re.findall(r"^[ \t>*-]*(?:```|~~~).*$", self.prose(), re.MULTILINE)

    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    def links(self) -> list[str]:
        return [target for pattern in _LINKS for target in pattern.findall(self.prose())]

    def anchors(self) -> set[str]:
        """What `#...` can point to: the headings, as GitHub names them."""
        headings = re.findall(r"^#+ +(.+?) *#*$", self.prose(), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def paths(self) -> set[str]:
        """Files and folders of the checkout that are named, in blocks too; of a pattern, the folder it is in."""
        found = set()
        for match in _PATH.finditer(self.text):
            path = match[0].rstrip("*{<") if match["open"] else match[0].rstrip(".")
            found.add(path.rpartition("/")[0] if match["open"] else path)
        return found

    def flags(self) -> set[str]:
        """Flags that stand in inline code: `--epochs`, `--epochs 4`."""
        return set(re.findall(r"`(--[a-z][a-z0-9-]*)", self.prose()))


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block as lists of words; in a `console` block only what follows a `$ `."""
    text = block.text.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [words for line in lines for words in _split(line)]


def _split(line: str) -> Iterator[list[str]]:
    """Split a line at && and ;, and drop comments and leading VARIABLE=value."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in (";", "&&"):
            words.append(word)
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words
        words = []
