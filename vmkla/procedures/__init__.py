"""What is seen over time: scenes, motion, lesions and picture quality. Imports neither vmkla.video nor torch."""
