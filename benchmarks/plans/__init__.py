"""Plans that are made in hindsight, from the workload as it turned out."""
