"""Parameters and multiplications of a network."""

import torch

from fcos_cli.model.networks.cost import network_cost
from tests.tiny import tiny_config, tiny_model


def test_parameters_are_all_numbers_of_the_state_dict() -> None:
    expected = sum(tensor.numel() for tensor in tiny_model(classes=5).state_dict().values())
    assert network_cost(tiny_config(), classes=5, size=(64, 64)).parameters == expected


def test_multiplications_of_one_more_convolution_by_hand() -> None:
    """Two towers on maps of 8×12, 4×6, 2×3, 1×2 and 1×1 cells, 16 channels."""
    cells = 96 + 24 + 6 + 2 + 1
    for tower, per_cell in (("full", 9 * 16 * 16), ("separable", 9 * 16 + 16 * 16)):
        one, two = (
            network_cost(tiny_config(tower=tower, convs=convs), classes=3, size=(64, 96)).macs for convs in (1, 2)
        )
        assert two - one == 2 * cells * per_cell


def test_a_class_costs_a_filter_per_cell() -> None:
    few, many = (network_cost(tiny_config(), classes=classes, size=(64, 64)).macs for classes in (3, 4))
    assert many - few == (64 + 16 + 4 + 1 + 1) * 9 * 16


def test_counting_draws_no_random_numbers() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    network_cost(tiny_config(), classes=9, size=(96, 64))
    assert torch.equal(torch.get_rng_state(), before)
