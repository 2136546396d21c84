"""The table of sources: an entry is all that another one needs."""

import dataclasses
from pathlib import Path

import pytest

from inq_ray.data import source as sources
from inq_ray.data.source import SOURCES, default_arch, named_source, open_source
from tests.data.folders import make_folder


def test_a_new_entry_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    entry = dataclasses.replace(
        SOURCES[0],
        matches=lambda data: data == "blobs",
        open=lambda opening: opened.append(opening) or SOURCES[0].open(opening),
        name="blobs",
        arch="cifar_resnet20",
    )
    monkeypatch.setattr(sources, "SOURCES", (entry, *SOURCES))
    assert open_source("blobs").info.num_classes == 10
    assert [opening.data for opening in opened] == ["blobs"]
    assert (named_source("blobs"), default_arch("blobs")) == (entry, "cifar_resnet20")


@pytest.mark.parametrize(("data", "arch"), [("digits", "digits_cnn"), ("/data/digits", "resnet18"), ("", "resnet18")])
def test_what_is_known_before_data_are_looked_at(data: str, arch: str) -> None:
    assert (named_source(data) is not None, default_arch(data)) == (data == "digits", arch)


def test_what_is_no_data_lists_all_layouts(tmp_path: Path) -> None:
    for data in ("", str(tmp_path / "nothing"), str(tmp_path), str(make_folder(tmp_path, {"a.parquet": b""}))):
        with pytest.raises(ValueError, match=r"'digits'.*train/CLASS/\*\.JPEG.*named like train-\*\.parquet") as error:
            open_source(data)
        assert "\n" not in str(error.value)
