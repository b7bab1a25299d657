"""Fit the operating point of a model to a site's scopes, with any runner and without torch."""
