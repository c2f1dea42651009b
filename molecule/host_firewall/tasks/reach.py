"""Connect from the gateway and from the stranger to every port of the server, both families at once."""

import json
import subprocess
import sys

PORTS = (8100, 8101, 4317, 9000)
INSIDE = """
import concurrent.futures, itertools, socket, sys
def attempt(target):
    try:
        socket.create_connection((target[0], int(target[1])), timeout=1.5).close()
        return "%s %s\\n" % target
    except TimeoutError:
        return ""
targets = list(itertools.product(sys.argv[1].split(","), sys.argv[2].split(",")))
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    print("".join(pool.map(attempt, targets)), end="")
"""


def main() -> None:
    """Compare what is reached with what is wanted."""
    host, told = sys.argv[1], json.loads(sys.argv[2])
    addresses = list(told["addresses"].values())
    words = [",".join(addresses), ",".join(str(port) for port in PORTS)]
    running = {
        who: subprocess.Popen(
            ["docker", "exec", f"{host}-{who}", "python3", "-c", INSIDE, *words], stdout=subprocess.PIPE, text=True
        )
        for who in ("gateway", "stranger")
    }
    for who, process in running.items():
        lines = sorted(process.communicate()[0].splitlines())
        wanted = sorted(f"{address} {port}" for address in addresses for port in told["wanted"][who])
        if lines != wanted or process.returncode:
            sys.exit(f"{who} reaches {lines}, not {wanted}")


main()
