"""From a media item's address to its embedding, so that nobody waits for another's picture."""
