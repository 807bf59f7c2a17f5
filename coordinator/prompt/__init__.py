"""From chat messages to token ids: the model's template, its tokenizer, and the media in between."""
