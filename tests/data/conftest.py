"""A network that refuses, for tests of sets that could be downloaded."""

import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Makes every attempt to reach another machine a failure of the test."""

    def refuse(*arguments, **settings):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
