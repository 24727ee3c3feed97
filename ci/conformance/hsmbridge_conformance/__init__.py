"""The conformance suite that a vendor runs against its own PKCS#11 module."""

from __future__ import annotations
