"""A process that has imported what commands need, and forks itself for each: `python warm_server.py SOCKET`.

A start costs the imports of torch and transformers, many seconds of processor time; a fork costs none. Each command
has its own process, arguments, folder, environment and streams, and ends as it would by itself, by a signal too.
Only the seed of Python's hashes is shared. It serves until its own stdin ends.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

# What commands load besides; a command that loads less is not changed by it, and one that loads more does so itself.
HEAVY = (
    *("spiritsafe.cli", "spiritsafe.pipeline", "spiritsafe.matched", "spiritsafe.photocopy", "spiritsafe.making"),
    *("spiritsafe.models.local", "spiritsafe.make.loop.train", "spiritsafe.make.prune", "spiritsafe.report"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto", "scipy.stats"),
    *("starlette.applications", "uvicorn", "httpx2", "gguf"),
)
HEAD = 4  # bytes of a length, a process id, a status


def whole(link: socket.socket, size: int) -> bytes:
    """So many bytes; fewer if the other side is gone."""
    received = b""
    while len(received) < size and (more := link.recv(size - len(received))):
        received += more
    return received


def reap(*_: object) -> None:
    """Wait for the keepers that ended, so that this process's times hold those of all commands."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def wait_for_command(listener: socket.socket) -> dict[str, Any]:
    """Fork for each command; returns in the processes that are to run one, with what was asked."""
    signal.signal(signal.SIGCHLD, reap)
    while True:
        ready, _, _ = select.select([listener.fileno(), sys.stdin.fileno()], [], [])
        if sys.stdin.fileno() in ready:
            os._exit(0)
        link, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return keep(link)
        link.close()


def keep(link: socket.socket) -> dict[str, Any]:
    """Start a command and tell its caller how it ends; it ends with its caller. Returns in the command's process."""
    head, streams, _, _ = socket.recv_fds(link, HEAD, 3)
    asked: dict[str, Any] = json.loads(whole(link, int.from_bytes(head)))
    child = os.fork()
    if not child:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        link.close()
        return asked
    for number in (0, 1, 2):  # nothing but the command holds its streams open
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.closerange(3, link.fileno())
    os.closerange(link.fileno() + 1, 1 << 10)
    link.sendall(child.to_bytes(HEAD))
    ended = os.pidfd_open(child)
    gone, _, _ = select.select([link.fileno(), ended], [], [])
    if ended not in gone:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if ended in gone:
        link.sendall(status.to_bytes(HEAD))
    os._exit(0)


def main() -> None:
    """Import, listen, and in each fork run the command that it is for."""
    for name in HEAVY:
        importlib.import_module(name)
    from spiritsafe import threads
    from spiritsafe.cli import main as command

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    gc.freeze()  # what was imported is never looked at again: its pages stay shared
    print("ready", flush=True)
    asked = wait_for_command(listener)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    threads.settle()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["spiritsafe", *asked["words"]]
    command()


if __name__ == "__main__":
    main()
