"""What an instance keeps of what it computed or was sent."""
