"""Measures what a model's work costs on a device, and fits a profile to it."""
