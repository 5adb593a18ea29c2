"""Where things are: this folder, the cache shared by all checkouts, and the directory of one run."""

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent
CAPABILITIES = HERE / "capabilities.txt"
PASSING = HERE / "passing.txt"
PAGE = REPOSITORY / "docs" / "conformance.md"


def cache() -> Path:
    """Programs, packages and images that no run changes; safe to delete."""
    default = Path(os.environ.get("HOME", "/root")) / ".cache" / "kedge-conformance"
    return Path(os.environ.get("KEDGE_CONFORMANCE_CACHE") or default)


def key(*parts: bytes | str | Path) -> str:
    """A short name for what was made from these texts and files."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(str(len(data)).encode() + b":" + data)
    return digest.hexdigest()[:16]
