"""Texts from outside, such as names and paths, for a person's terminal."""

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Cf: what turns the direction of writing, among others
# Of a message, so that with the name of a program before it it has 300 at most.
_MOST_OF_LINE = 280


def has_control(text: str) -> bool:
    """Return whether a text has control characters or line breaks, which a terminal would obey."""
    return any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in text)


def shown(value: object, most: int = 100) -> str:
    """Return a value for a message: as it is, by repr if it has what cannot be printed, and never too long.

    Args:
        value: What was given.
        most: Characters; of a longer text the middle is left out.
    """
    text = str(value)
    if any(unicodedata.category(each) in _UNSAFE for each in text):
        text = ascii(text)
    return _cut(text, most)


def quoted(value: object, most: int = 100) -> str:
    """Return the repr of a value for a message, never too long."""
    return _cut(ascii(value) if isinstance(value, str) and has_control(value) else repr(value), most)


def escaped(text: str) -> str:
    r"""Return a text with its control characters written as \x1b."""
    return "".join(ascii(each)[1:-1] if unicodedata.category(each) in _UNSAFE else each for each in text)


def one_line(message: object, most: int = _MOST_OF_LINE) -> str:
    """Return a message as one line that can be printed: control characters escaped, its middle cut if it is long."""
    return _cut(escaped(" ".join(str(message).split())), most)


def _cut(text: str, most: int) -> str:
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"
