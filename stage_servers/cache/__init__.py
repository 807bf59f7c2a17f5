"""What an instance keeps of what it computed: KV of prefixes, under the books of core.cache."""
