"""The two access keys by which the accounts reach each other."""
