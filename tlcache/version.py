"""The version, for whoever may not import the package itself."""

__all__ = ["__version__"]

__version__ = "0.2.0"
