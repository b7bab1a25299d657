"""What is seen over time: scenes, motion and lesions. Imports neither vmkla.video nor torch."""
