"""PKCS#11 for keys that change hands: modules, tokens, objects, residency, wrapping.

The package imports nothing by itself; each noun of the specification is a module.
"""

from __future__ import annotations

from hsmbridge._version import __version__

__all__ = ["__version__"]
