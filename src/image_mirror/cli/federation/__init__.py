"""Federation between the two accounts, by which they reach each other without keys."""
