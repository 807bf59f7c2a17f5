"""The highest rate that each policy set bears on a live cluster, and beside it the simulator's."""
