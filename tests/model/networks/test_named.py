"""Networks by name: their settings build, and the stored figures are those of the built network."""

import pytest

from fcos_cli.config import Config
from fcos_cli.errors import UsageError
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.networks.cost import network_cost
from fcos_cli.model.networks.named import CLASSES, NETWORKS, named_network


@pytest.mark.parametrize("name", NETWORKS)
def test_stored_figures_are_those_of_the_network(name: str) -> None:
    network = named_network(name)
    config = ModelConfig(**network.settings()["model"])
    cost = network_cost(config, classes=CLASSES, size=(network.size, network.size))
    assert (network.parameters, network.macs) == cost


def test_small_is_the_default() -> None:
    assert Config.model_validate(NETWORKS["small"].settings()) == Config()


def test_each_network_takes_more_work_than_the_one_before() -> None:
    work = [network.macs for network in NETWORKS.values()]
    assert work == sorted(work)
    assert list(NETWORKS) == ["nano", "small", "medium"]


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UsageError, match="no network 'tiny'") as caught:
        named_network("tiny")
    assert "nano, small, medium" in str(caught.value.remedy)
    assert "--init" in str(caught.value.remedy)
