"""What each tenant may do and gets."""
