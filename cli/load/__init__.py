"""Load on a cluster: requests planned before they are sent, and what became of each. For benchmarks, too."""

from typing import Literal

DoorName = Literal["grpc", "http"]
