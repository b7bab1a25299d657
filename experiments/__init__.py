"""Scripts that train and compare networks."""
