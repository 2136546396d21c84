"""--equalize in a run: before the first stage, once, alike on every rank and however the run came there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inq_ray.models.selection import param_groups
from inq_ray.training.bad_images import BadImages
from inq_ray.training.build import build_task
from inq_ray.training.config import RunConfig
from inq_ray.training.equalization import equalize_channels
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.validation import validate
from tests.ranks import run_ranks
from tests.training.runs import needs_digits, read_rows
from tests.training.test_resume import configured, run_in_parts

EQUAL: dict[str, Any] = {"quantization": {"equalize": True, "codebook": "weighted"}}


def test_the_paper_s_codebook_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="--equalize scales towards powers of least error: add --codebook weighted"):
        RunConfig().replace(quantization={"equalize": True, "codebook": "max"})


@needs_digits
@pytest.mark.parametrize("size", [1, 2])
def test_a_run_and_its_parts_end_with_the_same_bits(size: int, tmp_path: Path) -> None:
    calm, stopped, plain = (
        configured(tmp_path, name, **options)
        for name, options in (
            ("calm", EQUAL),
            ("stopped", EQUAL),
            ("plain", {"quantization": {"codebook": "weighted"}}),
        )
    )
    (digest, _), *_ = run_ranks(run_in_parts, size, calm, [])
    (again, _), *_ = run_ranks(run_in_parts, size, stopped, [(0, 1, 4), (1, 2, 4), (2, 2, 4)])
    (without, _), *_ = run_ranks(run_in_parts, size, plain, [])
    assert digest == again != without
    rows = read_rows(RunFolder.planned(calm))
    assert rows == read_rows(RunFolder.planned(stopped))
    result = load_file(RunFolder.planned(calm).result / "model.safetensors")
    names = [name for name, value in result.items() if name.endswith("weight") and value.dim() > 1]
    for name in names:
        magnitudes = result[name].abs()
        exponents = magnitudes[magnitudes > 0].log2()
        assert torch.equal(exponents, exponents.round()), name


@needs_digits
def test_accuracy_before_the_first_stage_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = configured(tmp_path, "same", **EQUAL)
    task = build_task(config, torch.device("cpu"))
    groups = param_groups(task.model, config.quantization.weight_bits)
    before = validate(task, config, BadImages(0))
    assert equalize_channels(config, task, groups) == 3
    after = validate(task, config, BadImages(0))
    assert after.num_top1 == before.num_top1
    assert after.loss == pytest.approx(before.loss, rel=1e-4)
