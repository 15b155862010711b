"""Run what the server of this folder forks; what is set in braces is filled in where a copy is written.

Python runs it isolated and without `site`, since starting is all that it does.
"""

import _socket
import os
import signal
import sys

SERVER, PROGRAM = "{server}", "{program}"
UNICODE = ("", "C", "POSIX", "C.UTF-8", "en_US.UTF-8")
FORKED = (
    ("-m", "ape_silverback.server"),
    ("-c", "from ape_silverback.server.runtimes.sdk import main; main()"),
    ("-m", "tests.deployment.forker"),
    ("-m", "tests.engines.public_command"),
)
"""What of an interpreter's arguments is forked: the server of a cluster, the bot SDK, and what imports as much."""


def is_forked():
    """Return whether the server can do as the program would."""
    if not PROGRAM.endswith("/ape") and tuple(sys.argv[1:3]) not in FORKED:
        return False
    named = {name for name in os.environ if name.startswith("PYTHON")} - {"PYTHONUNBUFFERED"}
    locale = {os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")}
    return not named and locale <= set(UNICODE)  # Python reads these when it starts, not after a fork


def run():
    """Have it run; return its exit code, below zero for a signal."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        if not is_forked():
            raise OSError
        connection.connect(SERVER)
    except OSError:
        os.execv(PROGRAM, [PROGRAM, *sys.argv[1:]])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, frame: connection.send(bytes([number])))
    arguments = [os.fsencode(part) for part in (PROGRAM, *sys.argv[1:])]
    mask = os.umask(0o077)
    parts = [b"%d" % len(arguments), b"%d" % mask, os.getcwdb(), *arguments]  # noqa: PTH109 - pathlib takes time to import
    parts += [name + b"=" + value for name, value in os.environb.items()]
    content = b"".join(part + b"\0" for part in parts)
    files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    connection.sendmsg([len(content).to_bytes(8, "little")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
    connection.sendall(content)
    for number in (0, 1):
        os.close(number)
    code = connection.recv(4)
    if not code:
        os.write(2, b"the process that forks `ape` for the tests has ended; its own error is above\n")
        return 70
    return int.from_bytes(code, "little", signed=True)


code = run()
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
