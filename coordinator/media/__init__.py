"""The media gateway, a process beside the coordinator, and how the coordinator runs and calls it."""
