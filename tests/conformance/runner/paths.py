"""Where things are: this folder, and the cache shared by all checkouts."""

import hashlib
import os
import shutil
import time
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


# What no run has used for so long goes when something new is made.
UNUSED_SECONDS = 7 * 24 * 3600


def used(folder: Path) -> Path:
    """Say that a folder of the cache is in use, and remove its neighbours that are not any more."""
    os.utime(folder)
    for other in folder.parent.iterdir():
        if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def took(folder: Path, more: float = 0) -> float:
    """Seconds that making this folder has taken so far."""
    file = folder / "seconds"
    seconds = more + (float(file.read_text()) if file.exists() else 0)
    if more:
        file.write_text(f"{seconds:.1f}")
    return seconds


def key(*parts: bytes | str | Path) -> str:
    """A short name for what was made from these texts and files."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(str(len(data)).encode() + b":" + data)
    return digest.hexdigest()[:16]
