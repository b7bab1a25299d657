"""Thousands of procedures on one machine or a cluster: work list, claims, workers, executors."""
