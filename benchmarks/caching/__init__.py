"""The parts of the cache benchmarks."""
