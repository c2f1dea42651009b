"""Ask the gateway over new and over kept connections until a file is gone; ends with 1 when a request was lost.

ask.py PORT KEY FILE
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path

port, key, file = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
sent, lost = [0], []


def ask(kept: bool) -> None:
    """One client without retries of its own."""
    link = None
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    while file.exists():
        try:
            link = link or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            link.request("POST", "/v1/chat/completions", '{"model": "one"}', headers)
            answer = link.getresponse()
            answer.read()
            if answer.status != 200:
                lost.append(f"{answer.status}")
            if not kept or answer.getheader("connection") == "close":
                link.close()
                link = None
        except (OSError, http.client.HTTPException) as error:
            lost.append(repr(error))
            link = None
        sent[0] += 1
        time.sleep(0.01)


clients = [threading.Thread(target=ask, args=(kept,)) for kept in (False, False, True, True)]
for client in clients:
    client.start()
for client in clients:
    client.join()
print(json.dumps({"sent": sent[0], "lost": len(lost), "first": lost[:3]}))
sys.exit(bool(lost) or sent[0] < 50)
