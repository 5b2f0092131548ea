"""The benchmark of flows: that both libraries compute the same amount. No time is asserted."""

import pytest

from benchmarks import flows


@pytest.mark.slow
def test_numpyros_flow_has_the_operations_of_ours(monkeypatch):
    monkeypatch.setattr(flows, "ROUNDS", 1)
    ours, peer = (
        flows.measure_flow(make, "reparam") for make in (flows.our_flow, flows.numpyro_flow)
    )
    # Three passes of each step's network, two operations for a product of numbers and its sum.
    products = flows.DRAWS * flows.BATCH * flows.LATENTS * flows.HIDDEN * 3
    for own in (ours, peer):
        assert own.milliseconds > 0
        assert 1 <= own.gigaflop * 1e9 / (flows.STEPS * 2 * 3 * products) <= 1.2
