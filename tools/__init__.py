"""Generators of the files that `make` writes."""
