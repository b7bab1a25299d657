"""Procedures: what is seen over time, scene by scene and lesion by lesion; imports neither vmkla.video nor torch."""
