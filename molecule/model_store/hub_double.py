"""A double of a model hub on loopback: one repository, one commit, files from a folder.

`--cut FILE` ends the first answer for FILE half way (a broken line), `--wrong FILE` sends other bytes the first time
(a broken mirror). Each happens once. Prints what was asked to the log file.
"""

import argparse
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40


def git_sha1(data: bytes) -> str:
    """The name git gives this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The parts of a hub that a download needs."""

    protocol_version = "HTTP/1.1"
    options: Any = None

    def do_HEAD(self) -> None:
        """Metadata of a file."""
        self.answer(head=True)

    def do_GET(self) -> None:
        """The list of files, or a file."""
        self.answer(head=False)

    def answer(self, *, head: bool) -> None:
        """Route by path."""
        path = self.path.split("?")[0]
        with Path(self.options.log).open("a") as log:
            log.write(f"{self.command} {self.path} {self.headers.get('Range', '-')}\n")
        if re.fullmatch(rf"/api/models/{self.options.repo}(/revision/(main|{COMMIT}))?", path):
            self.send(json.dumps(self.listing()).encode(), {"Content-Type": "application/json"}, head=head)
            return
        found = re.fullmatch(rf"/{self.options.repo}/resolve/(?:main|{COMMIT})/(.+)", path)
        file = Path(self.options.folder) / found.group(1) if found else None
        if file is None or not file.is_file():
            self.send(b'{"error": "not found"}', {"X-Error-Code": "EntryNotFound"}, head=head, status=404)
            return
        data, name = file.read_bytes(), file.name
        large = name.endswith(".safetensors")
        etag = hashlib.sha256(data).hexdigest() if large else git_sha1(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not head and name in self.options.wrong:
            self.options.wrong.remove(name)
            data = bytes(reversed(data))
        self.send(
            data, headers, head=head, cut=not head and name in self.options.cut and not self.options.cut.remove(name)
        )

    def listing(self) -> dict[str, Any]:
        """The repository as the API lists it."""
        siblings = []
        for file in sorted(Path(self.options.folder).iterdir()):
            if file.is_file() and not file.name.startswith("."):
                data = file.read_bytes()
                entry: dict[str, Any] = {"rfilename": file.name, "size": len(data), "blobId": git_sha1(data)}
                if file.suffix == ".safetensors":
                    entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                siblings.append(entry)
        return {
            "id": self.options.repo,
            "modelId": self.options.repo,
            "sha": COMMIT,
            "private": False,
            "siblings": siblings,
        }

    def send(self, data: bytes, headers: dict[str, str], *, head: bool, status: int = 200, cut: bool = False) -> None:
        """Answer, from the byte that Range asks for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200:
            last = int(wanted.group(2)) if wanted.group(2) else len(data) - 1
            headers["Content-Range"] = f"bytes {wanted.group(1)}-{last}/{len(data)}"
            data, status = data[int(wanted.group(1)) : last + 1], 206
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not head:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """The log file is enough."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--repo", default="house/tiny")
    parser.add_argument("--cut", action="append", default=[])
    parser.add_argument("--wrong", action="append", default=[])
    Handler.options = parser.parse_args()
    ThreadingHTTPServer(("127.0.0.1", Handler.options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
