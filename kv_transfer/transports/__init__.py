"""The ways in which bytes get from a sender into leased blocks."""
