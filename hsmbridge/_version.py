"""The version of the distribution, kept here and nowhere else.

The build reads this file, and so does ``hsmbridge --version``: asking ``importlib.metadata`` instead would cost the
command a search through every installed distribution.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
