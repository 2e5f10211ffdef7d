"""Nothing in this folder may use the network."""

import socket

import pytest


class NetworkUsed(BaseException):
    """No Exception, so that no `except Exception` hides it."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise NetworkUsed(str(arguments))

    for place, name in ((socket.socket, "connect"), (socket, "create_connection"), (socket, "getaddrinfo")):
        monkeypatch.setattr(place, name, refuse)
