"""Who may call: API keys, what they allow, and whose calls they make."""
