"""The images that the conformance tests ask for: one table, and how each is made here."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import debian, oci, paths, programs, say
from .oci import File, Image

# Where the tests' images are pulled from: our own registry on every node's loopback (see registry.py).
REGISTRY = "127.0.0.1:5000"
# Each of the registries that the tests know, and what it is here.
REGISTRIES = {
    "promoterE2eRegistry": f"{REGISTRY}/e2e-test-images",
    "gcEtcdRegistry": REGISTRY,
    "gcRegistry": REGISTRY,
    "buildImageRegistry": f"{REGISTRY}/build-image",
    "sigStorageRegistry": f"{REGISTRY}/sig-storage",
    "dockerLibraryRegistry": f"{REGISTRY}/library",
}
# Changed by hand when an image is to be made anew although no list below changed.
EDITION = 1

# GNU's wget: that of Debian's busybox crashes when it is given a timeout.
BUSYBOX = ["base-files", "bash-static", "busybox", "libc-bin", "netbase", "wget"]
# What agnhost's own image has, upon busybox.
AGNHOST = ["base-files", "bash", "busybox", "libc-bin", "netbase", "bind9-dnsutils",
           "curl", "iperf", "iproute2", "netcat-openbsd", "socat", "util-linux", "wget"]
GLIBC = ["base-files", "bash", "bind9-dnsutils", "coreutils", "dash", "findutils", "grep", "hostname", "libc-bin",
         "netbase", "procps", "sed"]
NGINX = ["base-files", "bash", "coreutils", "curl", "dash", "grep", "libc-bin", "nginx-light", "sed"]
PERL = ["base-files", "dash", "perl-base"]
ETCD = ["base-files", "coreutils", "dash", "etcd-server"]
# Dependencies of an installation, not of a program that runs.
WITHOUT = ["adduser", "debconf", "debianutils", "dpkg", "init-system-helpers", "iproute2-doc", "libpam-modules",
           "libpam-modules-bin", "libpam-runtime", "libperl5.36", "lsb-base", "passwd", "perl", "perl-base",
           "perl-modules-5.36", "sysvinit-utils", "tar"]

FOLDERS = [File(f"{name}/") for name in ["dev", "etc", "home", "proc", "root", "sys", "uploads", "var"]] + [
    File("tmp/", mode=0o1777)]
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = b"root:x:0:\nnogroup:x:65534:\n"
# Tests of supplemental groups look for these two.
AGNHOST_PASSWD = PASSWD + b"user-defined-in-image:x:1000:1000::/home:/bin/sh\n"
AGNHOST_GROUP = GROUP + b"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
# busybox' own shell, by whose words some tests know it; but Debian's drops variables whose names are not a shell's, and other
# tests want to see them: bash keeps those.
SHELL = b"""#!/usr/bin/bash-static
while IFS= read -r -d '' variable; do
    case "${variable%%=*}" in *[!A-Za-z0-9_]*) exec -a /bin/sh /usr/bin/bash-static "$@" ;; esac
done < /proc/self/environ
exec -a /bin/sh /usr/bin/busybox "$@"
"""
NGINX_CONF = b"""worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server { listen 80; location / { root /usr/share/nginx/html; index index.html; } }
}
"""
NGINX_PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body>nginx</body></html>\n"


def users(passwd: bytes, group: bytes) -> list[File]:
    return [File("etc/passwd", data=passwd, mode=0o644), File("etc/group", data=group, mode=0o644)]


class Maker:
    """The layers that several images share, each made when first asked for."""

    def __init__(self, layout: oci.Layout, built: Path) -> None:
        self.layout = layout
        self.built = built
        self.made: dict[str, dict] = {}

    def debian(self, packages: list[str], without: list[str] = WITHOUT) -> dict:
        key = " ".join(packages)
        if key not in self.made:
            self.made[key] = self.layout.tree(debian.root(packages, without))
        return self.made[key]

    def with_busybox(self, packages: list[str]) -> list[dict]:
        """Packages, and busybox for every command that none of them has."""
        root = debian.root(packages, WITHOUT)
        return [self.debian(packages), self.layout.files(FOLDERS + applets(root))]

    def agnhost(self) -> dict:
        return self.layout.files([self.program("agnhost", "agnhost")])

    def program(self, name: str, path: str, mode: int = 0o755) -> File:
        return File(path, source=self.built / name, mode=mode)


def applets(root: Path) -> list[File]:
    listed = subprocess.run(["chroot", root, "/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    have = {path.name for folder in ["usr/bin", "usr/sbin"] for path in (root / folder).iterdir()}
    return [File(f"usr/bin/{name}", link="busybox") for name in listed.stdout.split() if name not in have]


def busybox(make: Maker) -> Image:
    own = [File("usr/bin/sh", data=SHELL), *users(PASSWD, GROUP)]
    return Image([*make.with_busybox(BUSYBOX), make.layout.files(own)], command=["sh"])


def nonroot(make: Maker) -> Image:
    image = busybox(make)
    image.user = "1234"
    return image


def agnhost(make: Maker) -> Image:
    own = [File("agnhost-2", link="agnhost"), File("usr/local/bin/iperf", link="/usr/bin/iperf"),
           # An installation would make this link.
           File("usr/bin/nc", link="nc.openbsd"),
           *users(AGNHOST_PASSWD, AGNHOST_GROUP)]
    # What its porter serves TLS with.
    porter = programs.sources("k8s.io/kubernetes") / "test/images/agnhost/porter"
    own += [File(name, source=porter / name, mode=0o644) for name in ["localhost.crt", "localhost.key"]]
    layers = [*make.with_busybox(AGNHOST), make.agnhost(), make.layout.files(own)]
    return Image(layers, entrypoint=["/agnhost"], command=["pause"])


def page(animal: str):
    """agnhost that serves which of two images it is."""

    def image(make: Maker) -> Image:
        image = agnhost(make)
        data = json.dumps({"image": f"{animal}.jpg"}).encode()
        image.layers.append(make.layout.files([File("data.json", data=data, mode=0o644)]))
        image.command = ["test-webserver"]
        return image

    return image


def nonewprivs(make: Maker) -> Image:
    image = busybox(make)
    image.layers.append(make.layout.files([make.program("nnp", "usr/local/bin/nnp", 0o6755)]))
    image.command = ["nnp"]
    return image


def glibc_dns(make: Maker) -> Image:
    return Image([make.debian(GLIBC), make.layout.files(FOLDERS + users(PASSWD, GROUP))], command=["bash"])


def regression_74839(make: Maker) -> Image:
    image = busybox(make)
    name = "regression-issue-74839"
    image.layers.append(make.layout.files([make.program(name, name)]))
    return Image(image.layers, entrypoint=[f"/{name}"])


def nginx(page: bytes):
    def image(make: Maker) -> Image:
        own = [*FOLDERS, *users(PASSWD + b"www-data:x:33:33::/var/www:/bin/false\n", GROUP + b"www-data:x:33:\n"),
               File("etc/nginx/nginx.conf", data=NGINX_CONF, mode=0o644), File("var/log/nginx/"),
               File("var/lib/nginx/"), File("usr/share/nginx/html/index.html", data=page, mode=0o644)]
        return Image([make.debian(NGINX), make.layout.files(own)], command=["nginx", "-g", "daemon off;"])

    return image


def perl(make: Maker) -> Image:
    without = [name for name in WITHOUT if name != "perl-base"]
    return Image([make.debian(PERL, without), make.layout.files(FOLDERS + users(PASSWD, GROUP))], command=["perl"])


def resource_consumer(make: Maker) -> Image:
    own = [make.program("consumer", "consumer"), make.program("consume-cpu", "consume-cpu")]
    return Image([*busybox(make).layers, make.layout.files(own)], entrypoint=["/consumer"])


def etcd(make: Maker) -> Image:
    own = [*FOLDERS, File("usr/local/bin/etcd", link="/usr/bin/etcd")]
    return Image([make.debian(ETCD), make.layout.files(own)], command=["etcd"])


def sample_apiserver(make: Maker) -> Image:
    layer = make.layout.files([*FOLDERS, make.program("sample-apiserver", "sample-apiserver")])
    return Image([layer], entrypoint=["/sample-apiserver"])


def pause(make: Maker) -> Image:
    """agnhost has a pause of its own; the tests only need a process that waits and ends on SIGTERM."""
    return Image([make.agnhost(), make.layout.files(FOLDERS)], entrypoint=["/agnhost", "pause"])


# Repository, or repository:tag where the tags differ → how it is made. What is not here no conformance test uses.
IMAGES = {
    "e2e-test-images/agnhost": agnhost,
    "e2e-test-images/busybox": busybox,
    "e2e-test-images/glibc-dns-testing": glibc_dns,
    "e2e-test-images/kitten": page("kitten"),
    "e2e-test-images/nautilus": page("nautilus"),
    "e2e-test-images/nginx:1.27.0-2": nginx(NGINX_PAGE),
    "e2e-test-images/nginx:1.28.0-2": nginx(NGINX_PAGE + b"<!-- new -->\n"),
    "e2e-test-images/nonewprivs": nonewprivs,
    "e2e-test-images/nonroot": nonroot,
    "e2e-test-images/perl": perl,
    "e2e-test-images/regression-issue-74839": regression_74839,
    "e2e-test-images/resource-consumer": resource_consumer,
    "e2e-test-images/sample-apiserver": sample_apiserver,
    "etcd": etcd,
    "pause": pause,
}


def repo_list(folder: Path) -> Path:
    """The file that tells the tests where their images are."""
    file = folder / "registries.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in REGISTRIES.items()))
    return file


def wanted(built: Path, scratch: Path) -> list[str]:
    """The names that the tests print as theirs."""
    environment = dict(os.environ, KUBE_TEST_REPO_LIST=str(repo_list(scratch)))
    listing = subprocess.run([built / "e2e.test", "--list-images"], capture_output=True, text=True, cwd=scratch,
                             env=environment)
    names = [line.strip() for line in listing.stdout.splitlines() if "/" in line and ":" in line]
    if not names:
        raise say.Problem(f"e2e.test --list-images printed nothing: {listing.stderr.strip()}")
    return names


def recipe(name: str):
    repository = name.removeprefix(f"{REGISTRY}/")
    return IMAGES.get(repository) or IMAGES.get(repository.rpartition(":")[0])


def build(built: Path) -> Path:
    """The layout with every image; its images.tar is what a node imports."""
    root = paths.cache() / "images"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        names = sorted(name for name in wanted(built, Path(scratch)) if recipe(name))
        key = paths.key("\n".join(names), Path(__file__), paths.HERE / "runner" / "oci.py", str(EDITION), built.name)
        folder = root / key
        if folder.exists():
            return paths.used(folder)
        say.line(f"making {len(names)} images")
        watch = say.Stopwatch()
        layout = oci.Layout(Path(scratch) / "layout")
        make = Maker(layout, built)
        for name in names:
            layout.image(recipe(name)(make), [name])
        layout.finish()
        paths.took(layout.folder, float(watch))
        shutil.move(layout.folder, folder)
    return paths.used(folder)
