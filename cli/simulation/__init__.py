"""How `elasticmm simulate` shows what it found."""
