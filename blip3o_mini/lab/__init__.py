"""Helpers of the notebooks and of the `start` job: pictures, the drawing of the system, a playground.

Only notebooks and the command line import this package; matplotlib and ipywidgets are imported where
they are used, because a plain installation has neither.
"""
