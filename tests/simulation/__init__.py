"""A whole fleet in one process: the product's own code, models of the services, a virtual clock, and a seed."""
