"""What is seen over time: scenes, motion, lesions, picture quality. Imports neither vmkla.video nor torch."""
