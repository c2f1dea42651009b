"""A double of an engine: says who it is and what it was sent; streams slowly when asked to."""

import json
import select
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

left: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """Health, and an echo of what arrived."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Health."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Echo, after four seconds if asked to, or a stream of five chunks in five seconds.

        Who goes away meanwhile is counted; the echo holds how many did.
        """
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if b'"stream": true' in body:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(5):
                self.wfile.write(b"7\r\nchunk " + str(i).encode() + b"\r\n")
                self.wfile.flush()
                time.sleep(1)
            self.wfile.write(b"0\r\n\r\n")
            return
        if b'"slow": true' in body:
            closed, _, _ = select.select([self.connection], [], [], 4)  # nobody sends a second request into it
            if closed:
                left.append(self.path)
                return
        told = {
            "double": sys.argv[1],
            "size": len(body),
            "left": len(left),
            "headers": {k.lower(): v for k, v in self.headers.items()},
        }
        answer = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
