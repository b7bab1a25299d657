"""The report of a procedure: one HTML page from the files in a run's folder."""
