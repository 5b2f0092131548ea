"""Tests of data sets have no network."""

import pytest
import requests


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Makes every request fail, as without a connection; returns the list of requested URLs."""
    requested = []

    def refuse(url, **options):
        requested.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "get", refuse)
    return requested
