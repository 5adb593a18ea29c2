"""A registry that only gives: the images of a layout over HTTP, on the loopback of a node.

Started as a program of its own in a node's network namespace: `python3 registry.py LAYOUT PORT`.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATH = re.compile(r"^/v2/(?P<repository>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)$")


def names(layout: Path) -> dict[str, dict]:
    """Name without the registry → descriptor."""
    index = json.loads((layout / "index.json").read_text())
    return {entry["annotations"]["io.containerd.image.name"].split("/", 1)[1]: entry for entry in index["manifests"]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    layout: Path
    images: dict[str, dict]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        if self.path in ("/v2", "/v2/"):
            return self.send(200, {}, b"{}", body)
        match = PATH.match(self.path.split("?")[0])
        digest, media_type = self.find(match) if match else (None, "")
        file = self.layout / "blobs" / (digest or "sha256:-").replace(":", "/")
        if not file.is_file():
            return self.send(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}', body)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        self.send(200, headers, file.read_bytes(), body)

    def find(self, match: re.Match) -> tuple[str | None, str]:
        repository, kind, reference = match["repository"], match["kind"], match["reference"]
        if kind == "blobs":
            return reference, "application/octet-stream"
        entry = self.images.get(f"{repository}:{reference}")
        found = entry["digest"] if entry else reference if reference.startswith("sha256:") else None
        return found, "application/vnd.oci.image.manifest.v1+json"

    def send(self, status: int, headers: dict[str, str], data: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    Handler.layout = Path(sys.argv[1])
    Handler.images = names(Handler.layout)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()


if __name__ == "__main__":
    main()
