"""Random seeds that are derived from their purpose, and never depend on what was drawn before."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Derive a seed in [0, 2**63) from parts such as a study's seed, a purpose and a number; equal on all machines."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
