"""Plain English in documents, help, messages, docstrings and comments: the words below have a plainer one."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from inq_ray.cli.program import COMMANDS, run
from tests.conftest import REPO
from tests.documents import Document

# What to write instead, by pattern. A pattern matches nothing that is plain: no word is here that has a good use.
PLAINER = {
    r"anew": "again",
    r"plays? no part": "has no effect, is ignored",
    r"tells|told": "prints, reports, shows",
    r"says(?! otherwise)": "prints, reports, shows, names",
    r"stands? the proof": "pass verification",
    r"beside": "in addition to, compared with, next to",
    r"from installed": "once installed",
    r"as far as": "name the thing",
    r"of which": "name the thing",
    r"of what (?:is|are|was|were|stays|remains|it|they|a|the)": "name the thing",
    r"of (?:resizing|everything that)": "name the thing: resize filter",
    r"what (?:\w+ )?is \w+ is": "name the thing",
    r"whatever|whoever|whenever|wherever": "any, every, all, regardless of",
    r"by heart": "overfitted",
    r"that (?:is|are) there": "exists, existing",
    r"that there (?:is|are)": "exists",
    r"there or not": "whether or not it exists",
    r"nowhere": "not ... anywhere",
    r"nobody": "no one, not ... by anyone",
    r"called so": "named",
    r"None where": "None if",
    r"where (?:there (?:is|are|was|were)|nothing|none|that (?:is|was|can|cannot|may|helps))": "if",
    r"stands? (?:in|there|before|beside|still|at|alone|within)": "is",
    r"(?:goes|go|went|going) on": "continues",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"by chance": "at random",
    r"nevertheless": "still, anyway",
    r"lets? go": "releases",
    r"(?:was|is|were|are) not seen|not been seen": "not tested",
    r"thereof|therein|hereof|ought": "of it, in it, should",
    r"betimes|unto|nought|naught": "no old words",
}
# Of documents alone.
PLAINER_FOR_USERS = {r"(?:a|the|its|each|this) room|rooms": "package"}


class Text(NamedTuple):
    """A piece of prose, and where it is."""

    place: str
    text: str


def _documents() -> list[Path]:
    folders = [path for folder in ("docs", "docker") for path in (REPO / folder).rglob("*.md")]
    return sorted([*REPO.glob("*.md"), *folders])


def _sources() -> list[Path]:
    return sorted(path for folder in ("inq_ray", "jobs", "benchmarks") for path in (REPO / folder).rglob("*.py"))


def _texts(path: Path) -> Iterator[Text]:
    """String literals, docstrings and comments of a Python file; comments on consecutive lines are one."""
    source = path.read_text()
    name = path.relative_to(REPO)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(f"{name}:{node.lineno}", node.value)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("# ")) for token in tokens if token.type == tokenize.COMMENT]
    for (line, text), following in zip(comments, [*comments[1:], None], strict=False):
        joined = f"{text} {following[1]}" if following and following[0] == line + 1 else text
        yield Text(f"{name}:{line}", joined)


def _hits(texts: Iterator[Text] | list[Text], plainer: dict[str, str]) -> list[str]:
    """Return a line for each odd word; text between backticks, or with an underscore or equals sign, is code."""
    found = []
    for place, text in texts:
        prose = " ".join(re.sub(r"`[^`]*`|\S*[_=]\S*", "CODE", text).split())
        for pattern, instead in plainer.items():
            for match in re.finditer(rf"(?<![-\w./])(?:{pattern})(?![-\w/:])", prose, re.IGNORECASE):
                around = prose[max(match.start() - 40, 0) : match.end() + 30]
                found.append(f"{place}: {match[0]!r} in {around!r}: {instead}")
    return sorted(set(found))


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(REPO)))
def test_documents_are_in_plain_words(path: Path) -> None:
    text = Text(str(path.relative_to(REPO)), Document.read(path).prose())
    assert _hits([text], PLAINER | PLAINER_FOR_USERS) == []


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(REPO)))
def test_messages_docstrings_and_comments_are_in_plain_words(path: Path) -> None:
    assert _hits(_texts(path), PLAINER) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_in_plain_words(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([command, "--help-all"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: ")
    assert _hits([Text(f"{command} --help-all", printed)], PLAINER) == []


def test_odd_words_are_found_and_plain_ones_are_not() -> None:
    source = REPO / "tests" / "test_words.py"
    assert any(text == Text("tests/test_words.py:1", __doc__ or "") for text in _texts(source))
    odd = ["It is made anew.", "None where\n    nothing is.", "whatever is wrong", "says who", "It is TOLD so"]
    assert all(_hits([Text("here", text)], PLAINER) for text in odd)
    plain = ["Say it again, where it is.", "`beside` is code", "beside=path", "canaewan", "storytellers", "goes one"]
    assert _hits([Text("here", text) for text in plain], PLAINER) == []
