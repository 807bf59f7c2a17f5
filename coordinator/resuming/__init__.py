"""Answers that a client may go on reading after it lost its call."""
