"""Nothing in this folder may use the network."""

import socket

import pytest


class NetworkUsed(BaseException):
    """Not an Exception, so that no `except Exception` hides it."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:  # processes of one machine talk through these
            raise NetworkUsed(str(address))
        connect(self, address)  # type: ignore[arg-type]

    def refuse(*arguments: object, **options: object) -> None:
        raise NetworkUsed(str(arguments))

    monkeypatch.setattr(socket.socket, "connect", local_only)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
