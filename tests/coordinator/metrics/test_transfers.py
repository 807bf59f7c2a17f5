from prometheus_client import CollectorRegistry

from coordinator.metrics.transfers import TransferCollector
from coordinator.stage_messages import TransferCounters
from tests.coordinator.instances import make_instance


def test_transfers_by_pair_transport_and_outcome() -> None:
    instance = make_instance("p0")
    instance.transfers = (TransferCounters("d0", "shm", 3, 1, 2, 4096, 0.5, {"TLS": 1}),)
    registry = CollectorRegistry()
    registry.register(TransferCollector([instance]))
    pair = {"instance_id": "p0", "peer_id": "d0", "transport": "shm"}
    for name, labels, value in (
        ("transfers_total", {"outcome": "committed"}, 3),
        ("transfers_total", {"outcome": "aborted"}, 1),
        ("transfers_in_flight", {}, 2),
        ("transfer_bytes_total", {}, 4096),
        ("transfer_seconds_total", {}, 0.5),
        ("transfer_failures_total", {"cause": "TLS"}, 1),
    ):
        assert registry.get_sample_value(f"elasticmm:{name}", pair | labels) == value
