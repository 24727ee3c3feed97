"""The main job, shown: two processes, one token, and keys that change hands."""

from __future__ import annotations
