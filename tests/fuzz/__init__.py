"""Hostile input for the webhook: reviews bent out of shape, any bytes, and an oracle that needs no example."""
