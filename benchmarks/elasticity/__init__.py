"""What the benchmarks of role switches and of elastic clusters share."""
