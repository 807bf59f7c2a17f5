"""What `elasticmm chat` holds and does, turn by turn."""
