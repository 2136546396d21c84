"""An option is declared once: what is added beside one field is known to all that ask about options."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import inq_ray
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import Affects, Declared, declared
from inq_ray.training.flags.parse import Action

OPTIONS = declared(RunConfig)

NEW = """
    sharpness: float = _of_stages(
        0.5,
        "Sharpness of nothing, in furlongs.",
        check=between("(0, 1]"),
        aliases=("--edge",),
        unused=_without("--nesterov", lambda config: not config.training.nesterov),
    )
"""

SCRIPT = """
import contextlib, io, json
import inq_ray
from inq_ray.data.source import open_source
from inq_ray.sweep.command_line import parse as parse_sweep
from inq_ray.sweep.reuse.keys import Origin, stage_keys
from inq_ray.sweep.space.axes import Range
from inq_ray.sweep.space.options import SpaceOptions
from inq_ray.sweep.space.space import Space, configured
from inq_ray.training.checkpoint.resume import differences
from inq_ray.training.config import RunConfig
from inq_ray.training.config.unused import unused_options
from inq_ray.training.flags.command import command_of
from inq_ray.training.flags.parse import parse

assert inq_ray.__file__.startswith({root!r}), inq_ray.__file__
base, other = parse([]).run, parse(["--edge", "0.75"]).run
assert (base.training.sharpness, other.training.sharpness) == (0.5, 0.75)

for read in (parse, parse_sweep):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        read(["--help-all"])
    assert "in furlongs" in " ".join(text.getvalue().replace("│", " ").split())

def refused(make):
    try:
        make()
    except ValueError as error:
        return str(error)

assert refused(lambda: parse(["--sharpness", "2"])) == "--sharpness must be in (0, 1], got 2.0"
assert refused(lambda: RunConfig.from_json('{{"training": {{"sharpness": "x"}}}}')) == (
    "training.sharpness must be a number, got 'x'"
)
assert RunConfig.from_json(other.to_json()) == other
assert "--sharpness 0.75" in command_of(other)

assert [each.flag for each in differences(base, other)] == ["--sharpness"]

origin = Origin(weights="w", teacher="", code="", fingerprint="f", numerics="n")
mine, yours = stage_keys(base, origin), stage_keys(other, origin)
assert [stage for stage in mine if mine[stage] == yours[stage]] == [0]

space = Space({{"training.sharpness": Range(0.1, 1.0)}})
assert configured(base, {{"training.sharpness": 0.75}}) == other

command = parse(["--sharpness", "0.75"])
info = open_source("digits").info
assert unused_options(command.given, command.run, info) == ["--sharpness has no effect without --nesterov"]
assert unused_options(command.given, parse(["--sharpness", "1", "--nesterov"]).run, info) == []
"""


@pytest.mark.system
def test_a_new_option_is_known_everywhere(tmp_path: Path) -> None:
    shutil.copytree(Path(inq_ray.__file__).parent, tmp_path / "inq_ray", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "inq_ray" / "training" / "config" / "training.py"
    source = path.read_text()
    field = "    lr_each: tuple"
    assert source.count(field) == 1
    path.write_text(source.replace(field, NEW + field))
    script = SCRIPT.format(root=str(tmp_path))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_flag_is_of_one_option() -> None:
    everything = [*OPTIONS.values(), *declared(Action).values()]
    flags = [flag for each in everything for flag in (each.flag, *each.option.aliases)]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("each", OPTIONS.values(), ids=lambda each: each.name)
def test_what_is_declared_fits_together(each: Declared) -> None:
    option = each.option
    assert option.help.endswith(".")
    assert len(option.help) <= 140
    assert all(f"{each.section}.{name}" in OPTIONS for name in option.replaces)
    if option.affects is Affects.NOTHING:
        assert option.in_stage_key, "it is in no key anyway"
