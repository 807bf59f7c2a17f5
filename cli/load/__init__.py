"""Load on a cluster: requests planned before they are sent, and what became of each. Benchmarks use it."""

from typing import Literal

DoorName = Literal["grpc", "http"]
