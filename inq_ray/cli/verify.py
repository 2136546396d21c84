"""`inq-ray verify RESULT`: checks the files of a result, and its claimed accuracy on data; prints a line per check.

Exit status 0: everything is correct. 1: something is wrong. 2: the check could not start.
"""

from collections.abc import Sequence
from pathlib import Path

from inq_ray.cli.quantize import evaluated
from inq_ray.cli.result import claimed, evaluation_words, run_with_result, value_of
from inq_ray.export.errors import VerificationError
from inq_ray.export.packed.reader import PackedFile
from inq_ray.export.table import rows_of
from inq_ray.files.shown import one_line
from inq_ray.verification import packed_in, verified

_HELP = """\
usage: {program} RESULT [--data DATA [FLAGS]]

Check that every quantized weight is 0 or ±2^k and equals its code, and that nothing in the files has changed. RESULT is
a run's folder or a packed file (NAME.inq.safetensors).

--data DATA also measures the accuracy and compares it with the claim, image by image; other flags are those of
inq-ray evaluate, such as --num-workers 8.

Exit status: 0 if everything is correct, 1 if something is wrong, 2 if the check could not start."""


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """
    return run_with_result(arguments, program, _HELP, lambda path, words: _execute(path, words, program))


def _execute(path: Path, words: list[str], program: str) -> int:
    if words and value_of("--data", words) is None:
        raise ValueError(f"{words[0]} needs --data DATA, on which the accuracy is measured")
    try:
        packed = verified(path)
    except VerificationError as error:
        return _failed(str(error))
    size = packed_in(path).stat().st_size
    for check, what in _checks(packed, size):
        print(f"right     {check:9} {what}")
    if words:
        try:
            print(f"right     accuracy  {_accuracy(packed, path, words, program)}")
        except VerificationError as error:
            return _failed(f"accuracy: {error.reason}")
    return 0


def _failed(reason: str) -> int:
    print(one_line(f"WRONG     {reason}", 300))
    return 1


def _checks(packed: PackedFile, size: int) -> list[tuple[str, str]]:
    """Return the name and the outcome of each check."""
    rows = [row for row in rows_of(packed) if row.bits is not None]
    weights, zeros = sum(row.num_values for row in rows), sum(row.num_zero for row in rows)
    all_values = sum(tensor.numel() for tensor in packed.state.values() if tensor.is_floating_point())
    bits = ", ".join(str(each) for each in sorted({row.bits for row in rows if row.bits}))
    levels = max((row.num_levels for row in rows), default=0)
    text = (
        f"{weights:,} in {len(rows)} tensors are 0 or ±2^k within their codebooks, {bits or 'no'} bits "
        f"({100 * zeros / max(1, weights):.1f} % zeros, at most {levels} levels per tensor)"
    )
    return [
        ("file", f"{size:,} bytes; the SHA-256 digests of index, codes and other tensors match"),
        ("weights", text),
        ("share", f"{100 * weights / max(1, all_values):.1f} % of {all_values:,} float values are quantized"),
        ("digest", f"{packed.digest} of the tensors; a run prints another one, which includes masks and codes"),
    ]


def _accuracy(packed: PackedFile, path: Path, words: list[str], program: str) -> str:
    """Measure the accuracy and compare it with the claim.

    Raises:
        VerificationError: The claim is wrong, or was measured on other data.
    """
    try:
        right, count, fingerprint, measured_on = claimed(packed)
    except ValueError as error:
        raise VerificationError(None, str(error)) from None
    accuracy, info = evaluated(evaluation_words(path, words), program)
    if info.fingerprint != fingerprint:
        raise VerificationError(None, "the claim was measured on other data: the fingerprints differ")
    if (accuracy.num_top1, accuracy.num_samples) != (right, count):
        raise VerificationError(
            None,
            f"{accuracy.num_top1:,} of {accuracy.num_samples:,} images, the claim is {right:,} of {count:,} "
            f"({measured_on}); another kind of processor may differ by an image",
        )
    return f"{right:,} of {count:,} images ({accuracy.top1:.2f} %), as claimed"
