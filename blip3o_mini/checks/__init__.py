"""Checks of the lessons' exercises: they compare a learner's function with the package's and name the slip."""
