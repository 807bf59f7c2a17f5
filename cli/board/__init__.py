"""What `elasticmm top` shows: one frame, gathered at once and drawn by rich."""
