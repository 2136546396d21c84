import shutil
from pathlib import Path

import pytest

from inq_ray.cli.flag_tables import main, with_tables
from inq_ray.sweep.space.options import SpaceOptions
from inq_ray.training.config import RunConfig
from inq_ray.training.config.option import declared
from tests.conftest import REPO

PAGE = REPO / "docs/flags.md"


def test_the_page_is_up_to_date() -> None:
    assert with_tables(PAGE.read_text()) == PAGE.read_text(), "run `make flags`"


def test_the_page_has_every_flag_with_its_default() -> None:
    text = with_tables("<!-- flags:begin -->\n\n<!-- flags:end -->")
    for kind in (RunConfig, SpaceOptions):
        for each in declared(kind).values():
            assert f"\n| `{each.flag}`" in text
    assert "| `--weight-decay`, `--wd` | `FLOAT` | `0.0005` |" in text
    assert "| `--channels-last`, `--no-channels-last` |  | on |" in text
    assert "| `resnet18-3bit` | `--arch resnet18 --weight-bits 3 --iterative-steps 0.2 0.4" in text


def test_what_is_not_between_the_marks_stays(tmp_path: Path) -> None:
    page = tmp_path / "flags.md"
    shutil.copy(PAGE, page)
    page.write_text(page.read_text().replace("| `0.0005` |", "| `0.5` |"))
    main(str(page))
    assert page.read_text() == PAGE.read_text()


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="flags:begin"):
        with_tables("# Flags\n")
