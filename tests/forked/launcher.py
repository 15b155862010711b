"""Run the ``ape`` that the server of this folder forks; what is set in braces is filled in where a copy is written.

Python runs it isolated and without `site`, since starting is all that it does.
"""

import _socket
import os
import signal
import sys

SERVER, APE = "{server}", "{ape}"
UNICODE = ("", "C", "POSIX", "C.UTF-8", "en_US.UTF-8")


def run() -> int:
    """Have it run; return its exit code, below zero for a signal."""
    environment = os.environb
    locale = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        if any(name.startswith(b"PYTHON") for name in environment) or set(locale) - set(UNICODE):
            raise OSError("Python reads these when it starts, not after a fork")
        connection.connect(SERVER)
    except OSError:
        os.execv(APE, [APE, *sys.argv[1:]])  # the real one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, frame: connection.send(bytes([number])))
    parts = [str(len(sys.argv) - 1).encode(), os.getcwdb(), *map(os.fsencode, sys.argv[1:])]  # noqa: PTH109 - pathlib takes time to import
    parts += [name + b"=" + value for name, value in environment.items()]
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
