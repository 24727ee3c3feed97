"""The forms in which a run is reported: all are made from one :class:`hsmbridge_conformance.report.Report`."""

from __future__ import annotations
