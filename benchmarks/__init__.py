"""Ratios measured side by side in one run, and where the CPU of an admission goes."""
