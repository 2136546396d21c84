"""Bits of single layers in words: PATTERN=BITS, read, written, and checked against a network."""

from collections import Counter
from collections.abc import Iterable, Mapping
from glob import escape

from torch import nn

from inq_ray.core.codebook import check_num_bits
from inq_ray.core.unwrap import unwrap
from inq_ray.files.shown import quoted, shown
from inq_ray.models.layer_weights import layer_weights, other_weights
from inq_ray.models.selection import check_pattern, included, matches

FLAG = "--layer-bits"


def parse_layer_bits(words: Iterable[str]) -> dict[str, int]:
    """Return bits by pattern, in the order of patterns.

    Args:
        words: Words such as "fc=8" or "layer1.*=4".

    Raises:
        ValueError: A word has another form, bits are not 2 to 8, or a pattern has several.
    """
    found: dict[str, int] = {}
    for word in words:
        pattern, _, bits = word.rpartition("=")
        if not pattern or not bits.isascii() or not bits.isdigit():
            raise ValueError(f"{quoted(word, 80)} is not PATTERN=BITS, such as fc=8 or layer1.*=4")
        num_bits = int(bits.lstrip("0")[:9] or 0)
        check_num_bits(num_bits, f"bits of {quoted(pattern, 80)}")
        if found.setdefault(pattern, num_bits) != num_bits:
            raise ValueError(f"{quoted(pattern, 80)} has {found[pattern]} and {num_bits} bits: leave one of them out")
    return dict(sorted(found.items()))


def words_of_bits(bits: Mapping[str, int]) -> tuple[str, ...]:
    """Return the words of :func:`parse_layer_bits`."""
    return tuple(f"{pattern}={num_bits}" for pattern, num_bits in sorted(bits.items()))


def as_layer_bits(bits: Mapping[str, int]) -> tuple[int, tuple[str, ...]]:
    """Return the most frequent bits, and words with the bits of all other weights.

    Args:
        bits: Bits of every quantized weight by its name.
    """
    counts = Counter(bits.values())
    most = max(counts, key=lambda num_bits: (counts[num_bits], num_bits))
    return most, words_of_bits({_pattern(name, bits): each for name, each in bits.items() if each != most})


def _pattern(name: str, names: Iterable[str]) -> str:
    """Return the shortest pattern that matches one of these weights: its module if that has no other, or its name."""
    module = name.rpartition(".")[0]
    is_alone = sum(each.startswith(f"{module}.") for each in names) == 1
    return escape(module if module and is_alone else name)


def check_layer_bits(
    model: nn.Module, bits: Mapping[str, int], *, skip: Iterable[str] = (), include: Iterable[str] = ()
) -> list[str]:
    """Check bits by pattern against a network.

    Args:
        model: The network, wrapped or not.
        bits: Bits by pattern.
        skip: Patterns of weights that stay float.
        include: Patterns of other weights that are quantized.

    Returns:
        Lines about weights that stay float although a pattern matches them.

    Raises:
        ValueError: A pattern matches no quantized weight, or two match one weight and have other bits; names the flag.
    """
    model, notes = unwrap(model), []
    weights = layer_weights(model)
    others = other_weights(model, weights)
    weights += included(others, include)
    known: dict[str, str] = {}
    for pattern, num_bits in bits.items():
        word = f"{pattern}={num_bits}"
        found = [weight for weight in weights if matches(pattern, weight.names)]
        if not found:
            for weight in included(others, [pattern]):
                raise ValueError(f"{FLAG} {shown(word)}: {weight.name} stays float: quantize it with --include, too")
            try:
                check_pattern(pattern, weights)
            except ValueError as error:
                raise ValueError(f"{FLAG}: {error}") from None
        kept = [weight for weight in found if any(matches(each, weight.names) for each in skip)]
        if kept == found:
            raise ValueError(f"{FLAG} {shown(word)}: {kept[0].name} stays float by --skip: leave one of them out")
        if kept:
            names = f"{kept[0].name} and {len(kept) - 1} more stay" if kept[1:] else f"{kept[0].name} stays"
            notes.append(f"{FLAG} {shown(word)}: {names} float by --skip")
        for weight in (each for each in found if each not in kept):
            other = known.setdefault(weight.name, word)
            if other.rpartition("=")[2] != str(num_bits):
                raise ValueError(
                    f"{FLAG} {shown(other)} {shown(word)}: both match {weight.name}: leave one of them out, or use a "
                    "narrower pattern"
                )
    return notes
