"""A small Debian root file system, made from packages without installing anything on this machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import paths, say

# Not needed in an image, and most of its size.
PRUNED = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug",
          "usr/share/common-licenses", "usr/share/zoneinfo", "usr/share/i18n", "usr/share/bash-completion",
          "var/cache", "var/lib/dpkg", "usr/share/GeoIP", "usr/lib/systemd", "lib/systemd", "etc/init.d", "etc/systemd"]
# One tree, as any Debian since 2023 has it.
MERGED = ["bin", "sbin", "lib", "lib64"]


def root(packages: list[str], without: list[str]) -> Path:
    """A directory with these packages and all they depend on, minus those that only an installation would need."""
    folder = paths.cache() / "debian" / paths.key(" ".join(packages), "|", " ".join(without), "|".join(PRUNED))
    if folder.exists():
        return paths.used(folder)
    if not shutil.which("apt-get"):
        raise say.Problem("the test images are made from Debian packages: this needs a machine with apt-get")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archives = Path(scratch) / "archives"
        new = Path(scratch) / "root"
        download(packages, archives)
        for name in MERGED:
            (new / "usr" / name).mkdir(parents=True)
            (new / name).symlink_to(f"usr/{name}")
        for package in sorted(archives.glob("*.deb")):
            if package.name.split("_")[0] not in without:
                unpack(package, new)
        for name in PRUNED:
            shutil.rmtree(new / name, ignore_errors=True)
        os.rename(new, folder)
    return folder


def download(packages: list[str], archives: Path) -> None:
    (archives / "partial").mkdir(parents=True)
    # As for an empty machine, so that what is installed here makes no difference.
    command = ["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", "-o", "Dir::State::status=/dev/null",
               "-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root", "install", *packages]
    if subprocess.run(command, capture_output=True, text=True).returncode == 0:
        return
    subprocess.run(["apt-get", "-qq", "update"], capture_output=True)
    again = subprocess.run(command, capture_output=True, text=True)
    if again.returncode != 0:
        raise say.Problem(f"the packages for the test images cannot be had: {again.stderr.strip()}")


def unpack(package: Path, into: Path) -> None:
    data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    tar = subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", str(into)], stdin=data.stdout)
    if data.wait() != 0 or tar.returncode != 0:
        raise say.Problem(f"{package.name} cannot be unpacked")
