"""Who has what: the cluster-wide index of cached blocks and embeddings."""
