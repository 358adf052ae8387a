"""Hostile input for the webhook: mutated reviews and any bytes, checked by an oracle that needs no expected answers."""
