"""No test of data reaches a server."""

import pytest
import requests


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """As where no server can be reached; returns what was asked for."""
    asked = []

    def refuse(url, **options):
        asked.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "get", refuse)
    return asked
