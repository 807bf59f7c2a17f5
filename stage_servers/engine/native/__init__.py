"""Passes over rows, attention and the few-rows step in C++, compiled on the machine that runs them."""
