"""Has the server of warm starts run a command in this process's folder, environment and streams; ends as it ends.

`python -I -S warm_client.py SOCKET WORDS`: it imports little, as it stands for a process of `spiritsafe` itself.
"""

import json
import os
import signal
import socket
import sys

HEAD = 4  # bytes of a length, a process id, a status


def main() -> None:
    """Ask, pass on signals, and end with the command's exit code or by its signal."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(sys.argv[1])
    asked = {"words": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
    body = json.dumps(asked).encode()
    socket.send_fds(link, [len(body).to_bytes(HEAD)], [0, 1, 2])
    link.sendall(body)
    command = int.from_bytes(link.recv(HEAD, socket.MSG_WAITALL))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(command, number))
    status = link.recv(HEAD, socket.MSG_WAITALL)
    code = os.waitstatus_to_exitcode(int.from_bytes(status)) if status else 1
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
