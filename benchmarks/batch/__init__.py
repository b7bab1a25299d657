"""What is measured of batches."""
