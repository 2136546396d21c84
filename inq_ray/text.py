"""Texts from outside, such as names in files and messages of libraries, as messages may show them."""


def one_line(text: str, most: int = 280) -> str:
    """Return a text on one line of at most `most` characters; by default so many that a program's name fits before it.

    What cannot be printed (line breaks, a terminal's control sequences) is escaped as by `repr`; what is too long loses
    its middle.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    head = (most - 3) * 2 // 3
    return text if len(text) <= most else f"{text[:head]}...{text[head + 3 - most :]}"


def shown(value: object) -> str:
    """Return what `repr` makes of a name or another value, in at most 100 characters."""
    return one_line(repr(value), 100)
