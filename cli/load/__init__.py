"""Load on a cluster: requests planned before they are sent, and what became of each; benchmarks use it, too."""

from typing import Literal

DoorName = Literal["grpc", "http"]
