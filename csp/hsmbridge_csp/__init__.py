"""The provider: CryptoAPI's key verbs, key blobs and the handover between processes."""

from __future__ import annotations
