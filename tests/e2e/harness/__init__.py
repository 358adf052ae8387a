"""What starts real programs, runs and deploys the product, and reads its templates and calls."""
