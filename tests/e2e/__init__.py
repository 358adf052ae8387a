"""Tests on real programs."""
