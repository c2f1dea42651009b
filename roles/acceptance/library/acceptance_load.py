#!/usr/bin/python
"""Says how far the load run's container is: asked again and again by a polling task, whose progress it words."""

from __future__ import annotations

import calendar
import http.client
import json
import re
import socket
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: acceptance_load
short_description: Says how far the load run is
description: Reads the container's state from the Docker engine and the progress bar from the run's log.
author: deployctl
options:
  container: {description: "Name of the load run's container.", type: str, required: true}
  title: {description: "What the progress speaks of.", type: str, required: true}
  log: {description: "The run's log on this host.", type: path, required: true}
  prompts: {description: "Requests of the whole run.", type: int, required: true}
  timeout: {description: "Seconds after which a run that still goes on counts as over.", type: float, required: true}
  docker_socket: {description: "Where the Docker engine listens.", type: path, required: true}
"""
EXAMPLES = r"""
- name: The load run is over
  acceptance_load: {container: acceptance-load, title: bench tiny, log: /run/x.log, prompts: 64, timeout: 600}
"""
RETURN = r"""
progress: {description: "How far it is, in words.", type: str, returned: always}
over: {description: "Whether there is nothing left to wait for.", type: bool, returned: always}
exit_code: {description: "Exit code of the run; absent while it runs.", type: int, returned: when it ended}
"""

BAR = re.compile(r"(\d+)/(\d+) \[")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the Docker engine's socket."""

    def __init__(self, path):
        super().__init__("docker", timeout=10)
        self.path = path

    def connect(self):
        """Connect to the socket file instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def container_state(docker_socket, name):
    """The engine's State of the container; empty when there is no such container. OSError when no engine answers."""
    connection = UnixConnection(docker_socket)
    try:
        connection.request("GET", f"/containers/{name}/json")
        response = connection.getresponse()
        text = response.read()
        return json.loads(text)["State"] if response.status == 200 else {}
    finally:
        connection.close()


def wording(title, log, prompts):
    """The progress in words, from the last state of the log's progress bar."""
    bars = [bar for bar in BAR.findall(log.replace("\r", "\n")) if int(bar[1]) == prompts]
    return f"{title}: {bars[-1][0]}/{prompts} requests" if bars else f"{title}: getting ready"


def age(state, now):
    """Seconds since the container started; 0 where the engine gives no time."""
    try:
        return now - calendar.timegm(time.strptime(state["StartedAt"][:19], "%Y-%m-%dT%H:%M:%S"))
    except (KeyError, ValueError):
        return 0.0


def report(state, log, options, now):
    """What the polling task sees."""
    result = {"progress": wording(options["title"], log, options["prompts"]), "over": False}
    if not state:
        return dict(result, over=True, exit_code=-1, progress=f"{options['title']}: its container is gone")
    if not state.get("Running"):
        return dict(result, over=True, exit_code=int(state.get("ExitCode", -1)))
    if age(state, now) > options["timeout"]:
        return dict(result, over=True, exit_code=-1, progress=result["progress"] + ", stopped: its time is up")
    return result


def main():
    """Entry point of the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "container": text,
            "title": text,
            "log": {"type": "path", "required": True},
            "prompts": {"type": "int", "required": True},
            "timeout": {"type": "float", "required": True},
            "docker_socket": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    log = Path(options["log"])
    try:
        state = container_state(options["docker_socket"], options["container"])
        lines = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        module.fail_json(msg=f"The state of the load run cannot be read: {error}")
    module.exit_json(changed=False, **report(state, lines, options, time.time()))


if __name__ == "__main__":
    main()
