"""Generators of what is written by `make`."""
