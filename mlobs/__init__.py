"""mlobs takes a model-serving process from a decorator to a page."""

__version__ = "0.1.0"
