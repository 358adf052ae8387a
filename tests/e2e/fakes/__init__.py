"""The parts that the product talks to: services of AWS, registries and a proxy, emulated or as local programs."""
