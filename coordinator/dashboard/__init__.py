"""One page on which the cluster is seen at work: what it shows, and how it is served."""
