"""What Prometheus is told: metrics of requests as they end, and of the cluster as it is when asked."""
