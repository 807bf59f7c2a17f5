import pytest

from elasticmm_client import AccessDenied, AdminClient, AsyncClient, Client, InvalidRequest, Migration
from tests.clients.fake_cluster import TOKEN, FakeCluster

MOVED = Migration("d-0", "d-1", 1.5, 3 << 20, "shm")


def test_moves_a_request(cluster: FakeCluster) -> None:
    with Client(cluster.address, token=TOKEN) as client, AdminClient(cluster.address, TOKEN) as admin:
        assert client.migrate("running") == MOVED
        assert client.migrate("running", "d-7").to_instance == "d-7"
        assert admin.migrate("running") == MOVED


async def test_moves_a_request_async(cluster: FakeCluster) -> None:
    async with AsyncClient(cluster.address, token=TOKEN) as client:
        assert await client.migrate("running") == MOVED
        with pytest.raises(InvalidRequest, match="no room"):
            await client.migrate("running", "full")


def test_says_why_not(cluster: FakeCluster) -> None:
    with Client(cluster.address, token=TOKEN) as client:
        with pytest.raises(InvalidRequest) as caught:
            client.migrate("running", "full")
        assert (caught.value.code, caught.value.message) == ("FAILED_PRECONDITION", "full has no room")
        with pytest.raises(InvalidRequest) as caught:
            client.migrate("another")
        assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "request_id")


def test_needs_the_token(cluster: FakeCluster) -> None:
    with Client(cluster.address) as client, pytest.raises(AccessDenied):
        client.migrate("running")
