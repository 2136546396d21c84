"""Your own networks: `package.module:function`, in the working directory or an installed package."""

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

    The working directory is appended to sys.path and stays there: a file in it never hides an installed module.

    Args:
        arch: "package.module:function"; a class or "Class.method" is allowed as well.

    Raises:
        ValueError: Wrong form, no such module, a failing import, no such attribute, or not callable; one line.
    """
    if not _FORM.fullmatch(arch):
        hint = _without_file(arch)
        raise ValueError(f"--arch {shown(arch)}: name your own network as package.module:function{hint}")
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
                f"--arch {shown(arch)}: no module {shown(error.name)} in {shown(folder)}, and none is installed"
                f"{_without_file(arch)}"
            ) from error
        raise ValueError(f"--arch {arch}: importing {module_name} failed: {_line(error)}") from error
    where = getattr(module, "__file__", None) or "without a file"
    try:
        function = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise ValueError(f"--arch {arch}: {module_name} ({where}) has no {path}") from error
    if isinstance(function, nn.Module):
        raise ValueError(f"--arch {arch}: {path} of {module_name} is a network: name a function that returns it")
    if not callable(function):
        raise ValueError(f"--arch {arch}: {path} of {module_name} is a {type(function).__name__}, not a function")
    return function


def create(arch: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Call the function, with num_classes= if it takes that or any keyword, and in_channels= if it names it.

    Raises:
        ValueError: As in `find`, or the call fails, or it returns something else than a nn.Module; one line.
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
            f"--arch {arch}: {called} returned a network that is compiled or wrapped, in whole or in part: return the "
            "plain network; --compile compiles it, and workers wrap it"
        )
    lazy = next((name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)), None)
    if lazy is not None:
        raise ValueError(
            f"--arch {arch}: {called} returned a network in which {lazy} has no shape yet (a lazy module): "
            "run a batch through it in the function"
        )
    odd = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(
            f"--arch {arch}: {called} returned a network whose state has {odd[0]}, which is not a tensor: only "
            "tensors can be saved and sent to workers, so do not use get_extra_state"
        )
    return model


def _without_file(arch: str) -> str:
    """Return advice if the module is named as a file."""
    file, _, function = arch.partition(":")
    if not file.endswith(".py"):
        return ""
    folder, _, name = file.removesuffix(".py").rpartition("/")
    where = f", with {shown(folder)} in PYTHONPATH" if folder else ""
    return f"; leave out '.py': --arch {shown(f'{name}:{function}')}{where}"


def _keywords(function: Callable[..., object]) -> tuple[frozenset[str], bool]:
    """Return the names of arguments that can be passed by keyword, and whether any keyword can."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables of extension modules have no signature
        return frozenset(), False
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = frozenset(parameter.name for parameter in parameters if parameter.kind in kinds)
    return named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].removesuffix(": ")
