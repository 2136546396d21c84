"""The network is quantized as the program does it, and is afterwards what it was before."""

from pathlib import Path
from typing import Any

import pytest
import torch

import inq_ray
from inq_ray.sensitivity.probe import num_code_bytes, score_of
from tests.sensitivity.networks import BITS, images, network, probe_of


@pytest.mark.parametrize("rounding", [{}, {"codebook_per": "channel", "levels": "full"}, {"calibration": [images()]}])
def test_it_is_restored(rounding: Any) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probe = probe_of(model, **rounding)
    with probe.quantized(BITS) as states:
        assert {name: state.codebook.num_bits for name, state in states.items()} == BITS
        assert probe.score().divergence > 0
        for name, state in states.items():
            assert torch.equal(state.codebook.decode(state.codes), model.get_parameter(name))
    with pytest.raises(ZeroDivisionError), probe.quantized(BITS):
        raise ZeroDivisionError
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert probe.score() == probe.float_score
    assert probe.float_score.divergence == 0


def test_with_calibration_it_is_the_post_training_quantization_of_the_library() -> None:
    model, other = network(), network()
    inq_ray.quantize_(other, images(), 3, bits={"4": 2})
    with probe_of(model, calibration=[images()]).quantized(BITS):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_size_is_that_of_the_saved_file(tmp_path: Path) -> None:
    model = network()
    probe = probe_of(model)
    with probe.quantized(BITS) as states:
        inq_ray.save(tmp_path / "a.inq.safetensors", model, states, classes=[1, 2])
        assert probe.file_size(states, {"classes": [1, 2]}) == (tmp_path / "a.inq.safetensors").stat().st_size
        codes = inq_ray.export.packed.reader.read(tmp_path / "a.inq.safetensors").quantized
        assert {name: num_code_bytes(state) for name, state in states.items()} == {
            name: each.num_bytes for name, each in codes.items()
        }


@pytest.mark.parametrize("rounding", [{}, {"calibration": [images()]}])
def test_cumulative_scores_are_those_of_all_layers_so_far(rounding: Any) -> None:
    probe = probe_of(network(), **rounding)
    scores = list(probe.cumulative(["4.weight", "0.weight"], 2))
    for names, score in zip((["4.weight"], ["4.weight", "0.weight"]), scores, strict=True):
        with probe.quantized(dict.fromkeys(names, 2)):
            assert probe.score() == score
    assert probe.score() == probe.float_score


def test_scores() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    score = score_of(logits, torch.tensor([1, 0, 0]), logits.flip(1))
    logs = logits.log_softmax(1)
    assert score.top1 == pytest.approx(200 / 3)
    assert score.loss == pytest.approx(-float(logs[0, 1] + logs[1, 0] + logs[2, 0]) / 3)
    expected = torch.nn.functional.kl_div(logs, logs.flip(1), reduction="batchmean", log_target=True)
    assert score.divergence == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="not finite"):
        score_of(logits * float("inf"), torch.tensor([1, 0, 0]), logits)
