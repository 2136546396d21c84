"""Optional libraries: the command that installs one, depending on how this package was installed."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from inq_ray.files.shown import shown

_PATH_LENGTH = 150


def install_command(extra: str, *packages: str) -> str:
    """Return a shell command that installs the libraries of an extra.

    If the package was installed from a checkout (`make setup`, `pip install -e`), the command installs the extra with
    the bounds in its pyproject.toml. Else it names the libraries, because pip cannot find the wheel again by its name.

    Args:
        extra: Name of the extra in pyproject.toml.
        packages: Names of the missing libraries, for pip.
    """
    checkout = _checkout()
    if checkout is None:
        return shlex.join(["pip", "install", *packages])
    return shlex.join(["pip", "install", "-e", f"{shown(checkout, _PATH_LENGTH)}[{extra}]"])


def _checkout() -> Path | None:
    """Return the checkout that this code runs from, if it was installed editable from there."""
    try:
        origin = distribution("inq-ray").read_text("direct_url.json")  # PEP 610; None if it came from an index
    except PackageNotFoundError:
        return None
    known = json.loads(origin or "{}")
    if not known.get("dir_info", {}).get("editable"):
        return None
    folder = Path(url2pathname(urlsplit(known["url"]).path))
    # This code may also belong to another checkout, which was not installed.
    return folder if folder == Path(__file__).resolve().parents[2] else None
