"""One machine stands for a fleet: the product's own code over modelled services and a virtual clock, by seed."""
