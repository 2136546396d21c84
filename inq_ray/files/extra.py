"""Optional libraries: the command that installs one, as it works for how this package was installed."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from inq_ray.files.shown import shown

_PATH_LENGTH = 150


def install_command(extra: str, *packages: str) -> str:
    """Return a command for a shell that installs the libraries of an extra.

    Where the package was installed from a checkout (`make setup`, `pip install -e`), it installs the extra with the
    bounds of its pyproject.toml. Else it names the libraries: a wheel cannot be found again by the package's name.

    Args:
        extra: Name of the extra in pyproject.toml.
        packages: Libraries that are missing, as pip knows them.
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
    # This code may also be that of another checkout, which was not installed.
    return folder if folder == Path(__file__).resolve().parents[2] else None
