"""What an instance keeps of what it computed or was sent, under the books of core.cache."""
