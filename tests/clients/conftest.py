from collections.abc import Iterator

import pytest

from elasticmm_client import Client
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    fake = FakeCluster()
    yield fake
    fake.stop()


@pytest.fixture
def client(cluster: FakeCluster) -> Iterator[Client]:
    with Client(cluster.address, token=TOKEN) as client:
        yield client
