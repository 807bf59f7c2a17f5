"""Pure records and rules shared by every process; imports nothing of ours and no torch."""
