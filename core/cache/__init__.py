"""The unified prefix cache without tensors: what a prompt is known by, and who may stay."""
