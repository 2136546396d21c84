"""Who imports whom: the architecture as a table, and `import inq_ray` as something that costs and starts nothing.

ROOMS says what the packages may import, FLOORS how the packages within a package stand on each other, and no file
imports itself by way of others. All is checked against the source, so that imports within functions, under
TYPE_CHECKING and through importlib count as well.
"""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import inq_ray

pytestmark = pytest.mark.system

_ROOT = Path(inq_ray.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the modules of one package may import, beside each other and the standard library.

    Attributes:
        ours: packages and modules of inq_ray.
        libraries: top-level packages of others. `torch` does not include torch.distributed: what the ranks say to each
            other has its own place.
        files: whether it may touch files.
    """

    ours: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()
    files: bool = True


def _room(ours: str = "", libraries: str = "", *, files: bool = True) -> Room:
    return Room(ours=frozenset(ours.split()), libraries=frozenset(libraries.split()), files=files)


_LEARNING = "torch torch.distributed torchvision pyarrow numpy safetensors rich tyro xxhash"
_BELOW_TRAINING = (
    "core files safetensors_file storage models data distributed export post_training scheduler verification"
)

ROOMS = {
    "core": _room(libraries="torch", files=False),
    "files": _room(),
    "safetensors_file": _room("files", "torch safetensors"),
    "storage": _room("files", "pyarrow tenacity"),
    "models": _room("core export files safetensors_file", "torch torchvision timm safetensors"),
    "data": _room("files storage", "torch torchvision pyarrow numpy PIL sklearn"),
    "distributed": _room("core", "torch torch.distributed xxhash"),
    "export": _room("core files safetensors_file", "torch safetensors numpy onnx onnxscript onnxruntime google"),
    "scheduler": _room("core distributed", "torch"),
    "verification": _room("core export files models", "torch"),
    "post_training": _room("core models", "torch"),
    "training": _room(_BELOW_TRAINING, _LEARNING),
    "tracking": _room("files training", "torch tensorboard mlflow wandb"),
    "sweep": _room(f"{_BELOW_TRAINING} training", f"{_LEARNING} matplotlib optuna yaml"),
    "sensitivity": _room(f"{_BELOW_TRAINING} training", "torch matplotlib"),
    "benchmark": _room(f"{_BELOW_TRAINING} training", "torch torch.distributed matplotlib"),
    "report": _room(f"{_BELOW_TRAINING} training sweep sensitivity", "torch pyarrow matplotlib"),
    "cluster": _room(
        f"{_BELOW_TRAINING} training tracking sweep benchmark", f"{_LEARNING} ray psutil grpc"
    ),  # psutil: Ray's own copy
    "cli": _room(f"{_BELOW_TRAINING} training tracking sweep report sensitivity benchmark cluster", "torch rich"),
    "__main__": _room("cli"),
    "__init__": _room("core models distributed export post_training scheduler verification"),
}

# Packages within a package, each above those that it may import; "" is the package's own files. Where that is missing,
# they stand on some of those and carry others: then circles alone are looked for.
FLOORS = {
    "core": ("partition", "optim"),
    "data": ("decode", "augment", "order", "folder", "parquet"),
    "training": ("config", "flags", "task", "loop", "evaluation", "report", "checkpoint", ""),
    "sweep": ("space", "reuse", "trials", ""),
    "cluster": ("node", "", "tune"),
}

_FILE_MODULES = frozenset({"fcntl", "glob", "io", "mmap", "os", "pathlib", "shutil", "sqlite3", "tempfile"})


def _modules() -> list[Path]:
    return sorted(_ROOT.rglob("*.py"))


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is imported anywhere in a module, and of attributes `torch.<name>`."""
    torch_names = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            torch_names.update(alias.asname for alias in node.names if alias.name == "torch" and alias.asname)
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            case ast.ImportFrom():
                yield node.lineno, "<relative import>"
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in torch_names:
                yield node.lineno, f"torch.{attribute}"
            case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")):
                match node.args:
                    case [ast.Constant(value=str(module)), *_]:
                        yield node.lineno, module
                    case _:
                        yield node.lineno, "<name known at run time>"


def _opened(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="open")):
                yield node.lineno
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" | "from_file")):
                yield node.lineno


def _is_allowed(name: str, own: str, room: Room) -> bool:
    top, _, rest = name.partition(".")
    if top == "inq_ray":
        package = rest.partition(".")[0]
        return package in (own, "", "__version__") or package in room.ours
    if name == "torch.distributed" or name.startswith("torch.distributed."):
        return "torch.distributed" in room.libraries
    if top in sys.stdlib_module_names:
        return room.files or top not in _FILE_MODULES
    return top in room.libraries


def violations(source: str, own: str) -> list[str]:
    """What a module of the room `own` imports against the table, as "line: what"."""
    tree, room = ast.parse(source), ROOMS[own]
    found = {(line, name) for line, name in _imported(tree) if not _is_allowed(name, own, room)}
    if not room.files:
        found |= {(line, "a file is opened") for line in _opened(tree)}
    return [f"{line}: {name}" for line, name in sorted(found)]


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(_ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    own = path.relative_to(_ROOT).parts[0].removesuffix(".py")
    assert own in ROOMS, f"inq_ray/{own} has no row in the import table"
    found = violations(path.read_text(), own)
    # These import by names that they are given: public names, commands, each of them tried, and a user's own network.
    if path.relative_to(_ROOT).as_posix() in ("__init__.py", "cli/program.py", "models/own_network.py"):
        found = [line for line in found if not line.endswith("<name known at run time>")]
    assert found == []


def _modules_imported(path: Path) -> set[str]:
    """Return the files of inq_ray that one imports, by dotted name; a package is its __init__.py."""
    own = _dotted(path)
    known = {_dotted(each) for each in _modules()}
    names = {name for _, name in _imported(ast.parse(path.read_text())) if name.startswith("inq_ray.")}
    return {
        module for name in names for module in (name, name.rpartition(".")[0]) if module in known - {own, "inq_ray"}
    }


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(_ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def is_upward(importer: str, imported: str) -> bool:
    """Return whether a file imports one of the same package that stands above it, by dotted names."""
    (_, room, *own), (_, other_room, *other) = f"{importer}.".split("."), f"{imported}.".split(".")
    if room != other_room or room not in FLOORS:
        return False
    floors = [_floor(room, parts) for parts in (own, other)]
    return None not in floors and floors[0] < floors[1]


def _floor(room: str, parts: list[str]) -> int | None:
    """Return the floor of a file within its package; None where files of its kind stand on no floor."""
    inner = parts[0] if parts and (_ROOT / room / parts[0]).is_dir() else ""
    assert inner in FLOORS[room] or not inner, f"inq_ray/{room}/{inner} has no floor"
    return FLOORS[room].index(inner) if inner in FLOORS[room] else None


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(_ROOT)))
def test_nothing_imports_what_stands_above_it(path: Path) -> None:
    assert [name for name in sorted(_modules_imported(path)) if is_upward(_dotted(path), name)] == []


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("inq_ray.training.config.run", "inq_ray.training.loop.trainer", True),
        ("inq_ray.training.report.console", "inq_ray.training.run", True),
        ("inq_ray.training.run", "inq_ray.training.config.run", False),
        ("inq_ray.training.loop.ema", "inq_ray.training.loop.trainer", False),
        ("inq_ray.data.augment.policy", "inq_ray.data.preprocessing", False),
        ("inq_ray.data.decode.small", "inq_ray.data.parquet.source", True),
        ("inq_ray.cluster.node.notice", "inq_ray.cluster.trainer", True),
        ("inq_ray.data.source", "inq_ray.training.run", False),  # which is what ROOMS is for
    ],
)
def test_what_stands_above_is_known(importer: str, imported: str, expected: bool) -> None:
    assert is_upward(importer, imported) == expected


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """Return files that import each other in a circle, the first one again at the end; none = []."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for other in sorted(imports[name]):
                if found := walk(other, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in imports if (found := walk(name, []))), [])


def test_no_file_imports_itself_by_way_of_others() -> None:
    imports = {_dotted(path): _modules_imported(path) for path in _modules()}
    assert find_circle(imports) == []


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize(
    ("own", "source", "name"),
    [
        ("core", "import ray", "ray"),
        ("core", "def f():\n    import ray.train", "ray.train"),
        ("core", "import torch.distributed as dist", "torch.distributed"),
        ("core", "from torch import distributed", "torch.distributed"),
        ("core", "from torch.distributed import all_reduce", "torch.distributed.all_reduce"),
        ("core", "import torch\nx = torch.distributed.is_initialized()", "torch.distributed"),
        ("core", "import torch as t\nx = t.distributed.is_initialized()", "torch.distributed"),
        ("core", "import importlib\nimportlib.import_module('ray.data')", "ray.data"),
        ("core", "from importlib import import_module\nimport_module('torchvision')", "torchvision"),
        ("core", "__import__('ray')", "ray"),
        ("core", "import importlib\nname = 'ray'\nimportlib.import_module(name)", "<name known at run time>"),
        ("core", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torchvision", "torchvision"),
        ("core", "import inq_ray.models.selection", "inq_ray.models.selection"),
        ("core", "from inq_ray import scheduler", "inq_ray.scheduler"),
        ("core", "from . import state", "<relative import>"),
        ("core", "from pathlib import Path", "pathlib.Path"),
        ("core", "x = open('weights')", "a file is opened"),
        ("data", "from inq_ray.models import registry", "inq_ray.models.registry"),
        ("models", "import numpy", "numpy"),
        ("export", "from inq_ray.training import run", "inq_ray.training.run"),
        ("models", "from inq_ray import data", "inq_ray.data"),
        ("scheduler", "from inq_ray.training.loop.trainer import train", "inq_ray.training.loop.trainer.train"),
        ("training", "from inq_ray.cluster import worker", "inq_ray.cluster.worker"),
        ("training", "import ray", "ray"),
        ("sweep", "from ray import tune", "ray.tune"),
        ("training", "from inq_ray.sweep.reuse import keys", "inq_ray.sweep.reuse.keys"),
        ("cluster", "import jobs.quantize_imagenet", "jobs.quantize_imagenet"),
    ],
)
def test_every_way_around_the_table_is_seen(own: str, source: str, name: str) -> None:
    assert [line.partition(": ")[2] for line in violations(source, own)] == [name]


def test_what_the_table_allows_is_allowed() -> None:
    source = "import math\nimport torch\nfrom torch import Tensor\nfrom inq_ray.core.state import TensorState\ntorch.nn"
    assert violations(source, "core") == []
    assert violations("import torch\nimport torch.distributed\ntorch.distributed.barrier()", "distributed") == []
    assert violations("from pathlib import Path\nx = open('a')\nfrom inq_ray.core import state", "export") == []


def _run(script: str, *, blocked: str = "") -> str:
    """Run Python in a process of its own, in which the `blocked` packages cannot be imported."""
    finder = f"""
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {blocked.split()!r}:
                    raise ImportError(f"{{name}} is blocked")

        sys.meta_path.insert(0, Blocked())
    """
    code = textwrap.dedent(finder) + textwrap.dedent(script)
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=_ROOT.parent)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_public_names_need_torch_and_no_other_large_library() -> None:
    names = _run(
        """
        import inq_ray
        for name in sorted(inq_ray.__all__):
            print(name, type(getattr(inq_ray, name)).__name__, name in dir(inq_ray))
        """,
        blocked="ray torchvision pyarrow tyro rich sklearn",
    )
    assert names.splitlines() == [
        "INQScheduler type True",
        "LiveGradients type True",
        "Moments type True",
        "ReplicaMismatchError type True",
        "SGD type True",
        "StageError type True",
        "__version__ str True",
        "clip_grad_norm_ function True",
        "float_state function True",
        "load function True",
        "param_groups function True",
        "quantize_ function True",
        "reset_lr_scheduler function True",
        "save function True",
        "summary function True",
        "verify function True",
    ]


def test_everything_but_the_cluster_works_without_ray() -> None:
    modules = [".".join(path.relative_to(_ROOT.parent).with_suffix("").parts) for path in _modules()]
    elsewhere = [
        name for name in modules if not name.startswith(("inq_ray.cluster", "inq_ray.cli", "inq_ray.__main__"))
    ]
    _run(
        f"""
        from importlib import import_module
        for name in {elsewhere!r}:
            import_module(name.removesuffix(".__init__"))
        """,
        blocked="ray",
    )


def test_import_starts_and_sets_up_nothing() -> None:
    _run(
        """
        import logging, os, threading, warnings

        import inq_ray

        assert "torch" not in sys.modules, "import inq_ray is free: torch comes with the first name that is used"

        import torch

        def surroundings():
            tasks = os.listdir("/proc/self/task")
            return {
                "threads": len(tasks),
                "children": [open(f"/proc/self/task/{task}/children").read() for task in tasks],
                "handlers": logging.getLogger().handlers + logging.getLogger("inq_ray").handlers,
                "levels": (logging.getLogger().level, logging.getLogger("inq_ray").level),
                "cuda": torch.cuda.is_initialized(),
                "distributed": torch.distributed.is_initialized(),
                "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed()),
                "environment": dict(os.environ),
            }

        before = surroundings()
        for name in inq_ray.__all__:
            getattr(inq_ray, name)
        assert surroundings() == before
        assert before["threads"] == 1 and before["children"] == [""] and not before["cuda"]
        assert "ray" not in sys.modules and "torchvision" not in sys.modules
        """
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SDG'"):
        inq_ray.SDG  # noqa: B018
