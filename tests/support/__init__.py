"""Fixtures, emulated parts and data that the tests share."""
