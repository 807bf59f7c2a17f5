"""The ways in which bytes get from a sender into leased blocks."""

# Best first. Kept here, without torch, for those that only offer the choice; `registry` has the parts.
NAMES = ("cuda_ipc", "shm", "collective", "nixl", "grpc")
