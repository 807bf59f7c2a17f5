"""The HTTP door standing by itself: worker processes in front of a coordinator that they reach by gRPC."""
