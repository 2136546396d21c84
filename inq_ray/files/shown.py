"""Text from outside, such as names and paths, made safe to print."""

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Cf includes characters that change the writing direction
# Most characters of a message: with the program's name before it, a line has at most 300.
_MOST_OF_LINE = 280


def has_control(text: str) -> bool:
    """Return whether a text has control characters or line breaks, which a terminal would obey."""
    return any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in text)


def shown(value: object, most: int = 100) -> str:
    """Return a value for a message: as it is, or its repr if it has unprintable characters; long values are shortened.

    Args:
        value: The value.
        most: Maximum number of characters; the middle of a longer text is left out.
    """
    text = str(value)
    if any(unicodedata.category(each) in _UNSAFE for each in text):
        text = ascii(text)
    return _cut(text, most)


def quoted(value: object, most: int = 100) -> str:
    """Return the repr of a value for a message; long values are shortened."""
    return _cut(ascii(value) if isinstance(value, str) and has_control(value) else repr(value), most)


def escaped(text: str) -> str:
    r"""Return a text with its control characters written as \x1b."""
    return "".join(ascii(each)[1:-1] if unicodedata.category(each) in _UNSAFE else each for each in text)


def one_line(message: object, most: int = _MOST_OF_LINE) -> str:
    """Return a message as one printable line: control characters escaped, the middle cut if it is too long."""
    return _cut(escaped(" ".join(str(message).split())), most)


def _cut(text: str, most: int) -> str:
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"
