"""Whether a call can be served at all; errors name the field."""
