"""What encoding holds up, measured: see benchmarks/encode.py."""
