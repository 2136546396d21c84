"""Text from outside, such as names and paths, made safe to print."""

import re
import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Cf includes characters that change the writing direction
# Most characters of a message: with the program's name before it, a line has at most 300.
_MOST_OF_LINE = 280

# What precedes keys: an address or a misspelled one, such as s3:/ or s3:, but not anonymous@ or hdfs://host:8020/.
_ADDRESS = (
    r"\b(?:(?:s3|gs):/{0,3}(?!anonymous@)"
    r"|(?:hdfs:/{0,3}|(?!(?:s3|gs):)[a-z][a-z0-9+.-]{0,19}:/{1,3})(?!anonymous@|[\w.-]*:\d+/))"
)
_KEYS = (
    # No bucket's name has an @.
    re.compile(r"(?P<before>\b(?:s3|gs):/{1,3})(?!anonymous@)[^\s/@]{1,300}(?=@)", re.IGNORECASE),
    re.compile(rf"(?P<before>{_ADDRESS})[^\s/@:]{{0,200}}:\S{{0,300}}(?=@)", re.IGNORECASE),
    re.compile(r"(?P<before>\bhttps?://)[^\s/@]{1,300}(?=@)", re.IGNORECASE),  # a token
    re.compile(
        r"(?P<before>[?&][\w-]{0,40}?(?:signature|sig|token|key|secret|credential|password)=)[^\s&'\")\],;]+",
        re.IGNORECASE,
    ),
    # Those of AWS, without a readable address before them.
    re.compile(r"(?P<before>\b)A[KS]IA[A-Z0-9]{16}[:/]\S{1,300}(?=@)"),
)
# Of a longer text only the ends are searched for keys; no more is ever printed.
_LONGEST_SEARCHED = 8000


def has_control(text: str) -> bool:
    """Return whether a text has control characters or line breaks, which a terminal would obey."""
    return any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in text)


def shown(value: object, most: int = 100) -> str:
    """Return a value for a message: as it is, or its repr if it has unprintable characters; long values are shortened.

    Keys in addresses are left out, here and in the functions below that shorten.

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


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1: "1 class", "2 classes", "1,000 images"."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def escaped(text: str) -> str:
    r"""Return a text with its control characters written as \x1b."""
    return "".join(ascii(each)[1:-1] if unicodedata.category(each) in _UNSAFE else each for each in text)


def one_line(message: object, most: int = _MOST_OF_LINE) -> str:
    """Return a message as one printable line: control characters escaped, the middle cut if it is too long."""
    return _cut(escaped(" ".join(str(message).split())), most)


def _without_keys(text: str) -> str:
    """Return a text with the keys and passwords in its addresses replaced by dots."""
    for pattern in _KEYS:
        text = pattern.sub(r"\g<before>...", text)
    return text


def _cut(text: str, most: int) -> str:
    if len(text) > _LONGEST_SEARCHED:
        text = text[: _LONGEST_SEARCHED // 2] + text[-_LONGEST_SEARCHED // 2 :]
    text = _without_keys(text)  # before cutting: a cut password would not be recognized
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"
