"""The checks, one module for each chapter of the catalogue."""

from __future__ import annotations
