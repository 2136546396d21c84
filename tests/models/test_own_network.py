"""One's own network: found in the working directory, called with what it takes, and every mistake in one line."""

import itertools
import sys
from pathlib import Path

import pytest
from torch import nn

from inq_ray.models.registry import check_arch, create

SOURCE = """
import torch
from torch import nn

def both(num_classes, in_channels=3):
    return nn.Conv2d(in_channels, num_classes, 1)

def classes(*, num_classes):
    return nn.Linear(3, num_classes)

def keywords(**options):
    assert set(options) == {"num_classes"}
    return nn.Linear(3, options["num_classes"])

def nothing():
    return nn.Linear(3, 2)

def needs(width):
    return nn.Linear(width, 2)

def fails(num_classes):
    raise KeyError("a", "b\\nc")

def compiled(num_classes):
    return torch.compile(nn.Linear(3, num_classes))

def compiled_in_part(num_classes):
    return nn.Sequential(nn.Linear(3, 3), torch.compile(nn.Linear(3, num_classes)))

def wrapped(num_classes):
    return nn.DataParallel(nn.Linear(3, num_classes))

class Noted(nn.Linear):
    def get_extra_state(self):
        return {"note": 1}

def noted(num_classes):
    return Noted(3, num_classes)

def lazy(num_classes):
    return nn.LazyLinear(num_classes)

def ends(num_classes):
    raise SystemExit(0)

def gives_a_list():
    return []

class Net(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(5, num_classes)

    @classmethod
    def wide(cls, num_classes):
        return cls(num_classes * 2)

number = 3
made = nn.Linear(3, 2)
"""
_names = (f"nets_of_a_test_{number}" for number in itertools.count())


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory, which is not on sys.path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    name = next(_names)
    (tmp_path / f"{name}.py").write_text(SOURCE)
    return name


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        ("both", (7, 2, 1, 1)),
        ("classes", (7, 3)),
        ("keywords", (7, 3)),
        ("nothing", (2, 3)),
        ("Net", (7, 5)),
        ("Net.wide", (14, 5)),
    ],
)
def test_called_with_what_it_takes(module: str, function: str, shape: tuple[int, ...]) -> None:
    check_arch(f"{module}:{function}")
    model = create(f"{module}:{function}", num_classes=7, in_channels=2)
    assert model.weight.shape == shape


def test_packages_and_their_neighbors(module: str, tmp_path: Path) -> None:
    package = tmp_path / f"package_of_{module}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(f"from {module} import both as make")
    assert isinstance(create(f"{package.name}.net:make", num_classes=2), nn.Conv2d)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("missing", "{module} (.*{module}.py) has no missing"),
        ("Net.narrow", "has no Net.narrow"),
        ("made", "made of {module} is a network: name a function that returns it"),
        ("number", "number of {module} is a int, not a function"),
        ("needs", "needs() failed: TypeError: .*missing 1 required positional argument: 'width'"),
        ("fails", "fails(num_classes=7) failed: KeyError: "),
        ("lazy", "lazy(num_classes=7) returned a network in which weight has no shape yet (a lazy module): run"),
        ("ends", "ends(num_classes=7) failed: SystemExit: 0"),
        ("gives_a_list", "gives_a_list() returned a list, not a torch.nn.Module"),
        ("compiled", "compiled(num_classes=7) returned a network that is compiled or wrapped"),
        ("compiled_in_part", "returned a network that is compiled or wrapped"),
        ("wrapped", "returned a network that is compiled or wrapped"),
        ("noted", "noted(num_classes=7) returned a network whose state has _extra_state, which is not a tensor"),
    ],
)
def test_mistakes_in_one_line(module: str, function: str, told: str) -> None:
    arch = f"{module}:{function}"
    pattern = told.format(module=module).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"^--arch {arch}: .*{pattern}") as error:
        create(arch, num_classes=7)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arch", ["nets_that_are_nowhere:make", "nets_that_are_nowhere.inner:make"])
def test_no_such_module_names_the_folder(module: str, tmp_path: Path, arch: str) -> None:
    with pytest.raises(ValueError, match=f"no module nets_that_are_nowhere in {tmp_path}, and none is"):
        check_arch(arch)


def test_a_module_that_cannot_be_imported_says_why(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}_bad.py").write_text("import nothing_of_this_name")
    with pytest.raises(
        ValueError, match=f"importing {module}_bad failed: ModuleNotFoundError: No module named 'nothing"
    ):
        check_arch(f"{module}_bad:make")
    (tmp_path / f"{module}_worse.py").write_text("def make(:\n")
    with pytest.raises(ValueError, match=f"importing {module}_worse failed: SyntaxError"):
        check_arch(f"{module}_worse:make")
    (tmp_path / f"{module}_script.py").write_text("import sys\nsys.exit()\n")
    with pytest.raises(ValueError, match=f"importing {module}_script failed: SystemExit"):
        check_arch(f"{module}_script:make")


@pytest.mark.parametrize("arch", [":", "nets:", ":make", "nets/a.py:make", "a b:c", "..a:b", "nets:make:it"])
def test_another_form(arch: str) -> None:
    with pytest.raises(ValueError, match=r"name your own network as package\.module:function"):
        check_arch(arch)


def test_what_is_installed_is_not_hidden_by_the_working_directory(module: str, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise SystemExit")
    assert create("torchvision.models:resnet18", num_classes=3).fc.out_features == 3
