"""What is proposed fits, and the flags that are printed give exactly that."""

import itertools

import pytest

from inq_ray.models.layer_bits import as_layer_bits, parse_layer_bits
from inq_ray.models.selection import param_groups
from inq_ray.sensitivity.measure import Measured, measure
from inq_ray.sensitivity.picture import figure_of
from inq_ray.sensitivity.probe import Probe
from inq_ray.sensitivity.proposal import Proposal, for_accuracy, for_size, recipe_of
from tests.sensitivity.networks import network, probe_of

TRIED = (2, 3, 5)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return probe_of(network())


@pytest.fixture(scope="module")
def measured(probe: Probe) -> Measured:
    told: list[str] = []
    found = measure(probe, TRIED, {}, told.append)
    assert told[0].startswith("12 networks to measure: 2 layers at 3 numbers of bits, alone and cumulatively; about ")
    return found


def test_the_measurement(probe: Probe, measured: Measured) -> None:
    assert list(measured.scores) == ["0.weight", "4.weight"]
    assert sorted(measured.ranking) == ["0.weight", "4.weight"]
    first, last = measured.ranking
    assert measured.scores[first][2].divergence >= measured.scores[last][2].divergence
    for num_bits in TRIED:
        assert measured.cumulative[num_bits][last] == measured.scores[last][num_bits]
        with probe.quantized(dict.fromkeys(measured.scores, num_bits)) as states:
            size, score = measured.uniform(num_bits)
            assert score == probe.score()
            assert abs(size - probe.file_size(states, {})) < 30


def test_a_proposal_for_a_size_fits(probe: Probe, measured: Measured) -> None:
    smallest, largest = measured.uniform(2)[0], measured.uniform(5)[0]
    for size in range(smallest + 20, largest + 50, 20):
        found = for_size(probe, measured, size, {})
        assert found is not None
        assert found.num_bytes <= size
        with probe.quantized(found.bits) as states:
            assert (found.num_bytes, found.score) == (probe.file_size(states, {}), probe.score())
    assert for_size(probe, measured, smallest - 50, {}) is None


def test_a_proposal_for_an_accuracy_has_it(probe: Probe, measured: Measured) -> None:
    for top1 in (1.0, measured.uniform(5)[1].top1 - 1):
        found = for_accuracy(probe, measured, top1, {})
        assert found is not None
        assert found.score.top1 >= top1
    assert for_accuracy(probe, measured, 1.0, {}) is not None
    assert for_accuracy(probe, measured, 100.0, {}) is None


def test_the_words_give_the_bits() -> None:
    model = network()
    for first, second in itertools.product(TRIED, TRIED):
        weight_bits, words = as_layer_bits({"0.weight": first, "4.weight": second})
        groups = param_groups(model, weight_bits, bits=parse_layer_bits(words))
        bits = {name: group["weight_bits"] for group in groups for name, _ in group["params"] if group["weight_bits"]}
        assert bits == {"0.weight": first, "4.weight": second}
    assert as_layer_bits({"a.b.weight": 4, "c.weight": 3, "d.weight": 4}) == (4, ("c=3",))
    assert as_layer_bits({"a.in_proj_weight": 4, "a.out_proj.weight": 3, "a[0].weight": 3}) == (
        3,
        ("a.in_proj_weight=4",),
    )
    assert as_layer_bits({"a[0].weight": 4, "b.weight": 3, "c.weight": 3})[1] == ("a[[]0]=4",)


def test_a_recipe_has_the_portions_of_its_mean_bits(probe: Probe, measured: Measured) -> None:
    score = probe.float_score
    proposal = Proposal(bits={"0.weight": 5, "4.weight": 3}, num_bytes=1, score=score, mean_bits=3.2)
    given = {"network.arch": "resnet18", "training.lr": 0.5}
    quantization = recipe_of(proposal, given).quantization
    assert (quantization.weight_bits, quantization.layer_bits, quantization.codebook) == (5, ("4=3",), "mse")
    assert len(quantization.iterative_steps) == 8  # those of 3 bits
    assert recipe_of(proposal, given).training.lr == 0.5
    kept = recipe_of(proposal, given | {"quantization.iterative_steps": (0.5, 1.0), "quantization.codebook": "max"})
    assert (kept.quantization.iterative_steps, kept.quantization.codebook) == ((0.5, 1.0), "max")
    at_once = recipe_of(proposal, given | {"quantization.post_training": True}).quantization
    assert (at_once.post_training, at_once.iterative_steps) == (True, (1.0,))
    assert len(recipe_of(proposal, given, recipe_name="lossless").quantization.iterative_steps) == 4


def test_the_picture(probe: Probe, measured: Measured) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    figure = figure_of(measured, probe.float_score, "a title")
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["2 bits", "3 bits", "5 bits"]
    assert [label.get_text() for label in left.get_yticklabels()] == list(measured.ranking)
    for line, num_bits in zip(right.lines, TRIED, strict=False):
        assert list(line.get_ydata())[-1] == measured.uniform(num_bits)[1].top1
