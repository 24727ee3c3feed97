"""A live TLS connection changes process, shown: two processes, one token, and clients that notice nothing."""

from __future__ import annotations
