"""A user's own network: `package.module:function`, found in the working directory or among the installed packages."""

import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from inq_ray.core.unwrap import plain_name, unwrap
from inq_ray.files.shown import shown

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def find(arch: str) -> Callable[..., object]:
    """Import the module and return the function.

    The working directory is searched after everything that is on sys.path, and stays there: nothing installed is hidden
    by a file that happens to lie in it.

    Args:
        arch: "package.module:function"; a class or "Class.method" will do as well.

    Raises:
        ValueError: One line: another form, no such module, an import that fails, no such attribute, not callable.
    """
    if not _FORM.fullmatch(arch):
        hint = _without_file(arch)
        raise ValueError(f"--arch {shown(arch)}: a network of your own is named package.module:function{hint}")
    module_name, _, path = arch.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail with anything when it is imported
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"--arch {shown(arch)}: there is no module {shown(error.name)} in {shown(folder)}, nor is one installed"
                f"{_without_file(arch)}"
            ) from error
        raise ValueError(f"--arch {arch}: importing {module_name} failed: {_line(error)}") from error
    where = getattr(module, "__file__", None) or "without a file"
    try:
        function = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise ValueError(f"--arch {arch}: {module_name} ({where}) has no {path}") from error
    if not callable(function):
        raise ValueError(f"--arch {arch}: {path} of {module_name} is a {type(function).__name__}, no function to call")
    return function


def create(arch: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Call the function with num_classes= where it takes that or any keyword, and in_channels= where it names it.

    Raises:
        ValueError: One line: as `find`, or the call fails or returns no nn.Module.
    """
    function = find(arch)
    named, any_keyword = _keywords(function)
    options = {}
    if any_keyword or "num_classes" in named:
        options["num_classes"] = num_classes
    if "in_channels" in named:
        options["in_channels"] = in_channels
    called = f"{arch.partition(':')[2]}({', '.join(f'{key}={value}' for key, value in options.items())})"
    try:
        model = function(**options)
    except (Exception, SystemExit) as error:  # a user's function may fail with anything
        raise ValueError(f"--arch {arch}: {called} failed: {_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"--arch {arch}: {called} returned a {type(model).__name__}, not a torch.nn.Module")
    if unwrap(model) is not model or any(plain_name(path) != path for path, _ in model.named_modules()):
        raise ValueError(
            f"--arch {arch}: {called} returned a network that is compiled or wrapped, whole or in part: return the "
            "network itself; --compile compiles it, and workers wrap it"
        )
    lazy = next((name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)), None)
    if lazy is not None:
        raise ValueError(
            f"--arch {arch}: {lazy} of the network that {called} returned has no shape yet (a lazy module): let the "
            "function run a batch through it before it returns"
        )
    odd = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(
            f"--arch {arch}: the state of the network that {called} returned has {odd[0]}, which is no tensor: files "
            "and workers take tensors alone, so leave get_extra_state out"
        )
    return model


def _without_file(arch: str) -> str:
    """Return advice where the module is named as a file."""
    file, _, function = arch.partition(":")
    if not file.endswith(".py"):
        return ""
    folder, _, name = file.removesuffix(".py").rpartition("/")
    where = f", with {shown(folder)} in PYTHONPATH" if folder else ""
    return f"; leave out '.py': --arch {shown(f'{name}:{function}')}{where}"


def _keywords(function: Callable[..., object]) -> tuple[frozenset[str], bool]:
    """Return the names of arguments that can be given by keyword, and whether any keyword can be."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables of extension modules tell nothing
        return frozenset(), False
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = frozenset(parameter.name for parameter in parameters if parameter.kind in kinds)
    return named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].removesuffix(": ")
