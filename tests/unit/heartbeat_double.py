"""A double of an engine: real processes that serve metrics and that hang in the ways an engine can.

`heartbeat_double.py FOLDER PORT` is the server, with a child whose command says EngineCore. That reads FOLDER/mode at
each step: step (a token each), wait (no step, no CPU), spin (no step, CPU), idle (no requests); nonsense and
nothing change what it answers. FOLDER/core and FOLDER/orphan hold process numbers, FOLDER/looks a byte per answer,
FOLDER/signals the names of signals that arrived.
SIGTERM ends it with code 0 after a moment; FOLDER/exit ends it with the code in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STEP = 0.02


def mode(folder: Path) -> str:
    try:
        return (folder / "mode").read_text()
    except OSError:
        return "step"


def core(folder: Path) -> None:
    tokens = 0
    while os.getppid() > 1:
        now = mode(folder)
        if now == "step":
            tokens += 1
            scratch = folder / "tokens.new"
            scratch.write_text(str(tokens))
            scratch.replace(folder / "tokens")
        if now != "spin":
            # One that waits uses no CPU, also where a look at the mode takes long.
            time.sleep(0.3 if now == "wait" else STEP)


class Handler(BaseHTTPRequestHandler):
    folder = Path()

    def do_GET(self) -> None:
        with (self.folder / "looks").open("a") as looks:
            looks.write(".")
        labels = '{engine="0",model_name="double"}'
        running = 0 if mode(self.folder) == "idle" else 2
        text = f"vllm:num_requests_running{labels} {running}.0\n"
        text += f"vllm:generation_tokens_total{labels} {(self.folder / 'tokens').read_text()}.0\n"
        if mode(self.folder) == "nonsense":
            text = f"vllm:num_requests_running{labels} many\n"
        self.send_response(404 if mode(self.folder) == "nothing" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def serve(folder: Path, port: int) -> None:
    (folder / "tokens").write_text("0")
    Handler.folder = folder
    child = subprocess.Popen([sys.executable, __file__, str(folder), "EngineCore"])
    # An orphan that ends: whoever is process 1 of a container has to take its remains.
    subprocess.run(["sh", "-c", "sleep 0.1 & echo $! > " + str(folder / "orphan")], check=True)
    (folder / "core").write_text(str(child.pid))

    def end(number: int, _: object) -> None:
        with (folder / "signals").open("a") as signals:
            signals.write(signal.Signals(number).name + "\n")
        if number == signal.SIGTERM:
            time.sleep(0.5)
            with (folder / "signals").open("a") as signals:
                signals.write("core runs\n" if child.poll() is None else "core has ended\n")
            child.kill()
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGUSR1, end)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not (folder / "exit").exists():
        time.sleep(STEP)
    child.kill()
    sys.exit(int((folder / "exit").read_text()))


if __name__ == "__main__":
    if sys.argv[2] == "EngineCore":
        core(Path(sys.argv[1]))
    else:
        serve(Path(sys.argv[1]), int(sys.argv[2]))
