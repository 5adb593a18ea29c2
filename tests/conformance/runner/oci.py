"""Container images written by hand: layers, configurations and manifests as an OCI layout."""

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass
class File:
    """One file of a layer. Exactly one of data, source and link is given."""

    path: str
    data: bytes | None = None
    source: Path | None = None
    link: str | None = None
    mode: int = 0o755


@dataclass
class Image:
    layers: list[dict]
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str = ""


class Layout:
    """A directory of blobs, shared by all images in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.index: list[dict] = []

    def blob(self, data: bytes, media_type: str) -> dict:
        name = hashlib.sha256(data).hexdigest()
        (self.blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    def tree(self, root: Path) -> dict:
        """A layer with everything below a directory."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(root.rglob("*")):
                tar.add(path, str(path.relative_to(root)), recursive=False, filter=timeless)
        return self.blob(out.getvalue(), LAYER)

    def files(self, files: list[File]) -> dict:
        """A layer with these files; the folders they are in are made where the layer below has none."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for file in files:
                add(tar, file)
        return self.blob(out.getvalue(), LAYER)

    def image(self, image: Image, names: list[str]) -> None:
        settings = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/",
                    "Entrypoint": image.entrypoint, "Cmd": image.command, "User": image.user}
        config = {
            "architecture": ARCHITECTURE, "os": "linux",
            "config": {key: value for key, value in settings.items() if value},
            # Layers are not compressed: their digest is that of their content.
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in image.layers]},
        }
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self.blob(encode(config), CONFIG),
                    "layers": image.layers}
        described = self.blob(encode(manifest), MANIFEST)
        for name in names:
            self.index.append(dict(described, annotations={"io.containerd.image.name": name}))

    def finish(self) -> None:
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": self.index}
        (self.folder / "index.json").write_bytes(encode(index))
        (self.folder / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))
        archive = self.folder / "images.tar"
        with tarfile.open(archive, mode="w") as tar:
            for name in ["oci-layout", "index.json", "blobs"]:
                tar.add(self.folder / name, name, filter=timeless)


def add(tar: tarfile.TarFile, file: File) -> None:
    entry = tarfile.TarInfo(file.path)
    entry.mode = file.mode
    if file.link is not None:
        entry.type, entry.linkname = tarfile.SYMTYPE, file.link
        tar.addfile(entry)
    elif file.path.endswith("/"):
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    else:
        data = file.source.read_bytes() if file.source else file.data or b""
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def timeless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, entry.uid, entry.gid, "", ""
    return entry


def encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
