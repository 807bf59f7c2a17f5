"""Model loading, paged KV, attention, batching and sampling: all that owns torch in a stage server."""
