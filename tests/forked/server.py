"""Fork an ``ape`` for each connection of a launcher: ``python server.py SOCKET APE PYTHON``. Ends with its stdin.

One serves all processes that run tests: its imports take five seconds.

Nothing that depends on the environment, the home or the folder may be made before the fork: modules are imported, and
no manager of Ape exists yet. What a process does from there on, it does with its launcher's environment.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import io
import os
import pkgutil
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PEAK = "TESTS_PEAK"
"""Variable that names a file for the most memory that a run had, in KiB."""

ROOMS = ("ape_silverback",)
MODULES = (
    *("ape._cli", "ape.api", "ape.cli", "ape.contracts", "ape.plugins", "ape.types", "ape.utils", "ape.version"),
    *("ape.managers.accounts", "ape.managers.chain", "ape.managers.compilers", "ape.managers.config"),
    *("ape.managers.converters", "ape.managers.networks", "ape.managers.plugins", "ape.managers.project"),
    *("ape.managers.query", "ape_accounts", "ape_accounts.accounts", "ape_cache.config", "ape_compile.config"),
    *("ape_console.config", "ape_ethereum.ecosystem", "ape_ethereum.provider", "ape_ethereum.proxies"),
    *("ape_foundry", "ape_foundry.provider", "ape_init", "ape_networks.config", "ape_node", "ape_node.provider"),
    *("ape_plugins", "ape_pm", "ape_pm.project", "ape_run", "ape_test", "ape_test.provider", "evmchains"),
    *("eth_abi", "eth_account", "encodings.idna", "encodings.utf_8_sig", "lazyasd", "rich.progress", "rich.table"),
    *("tomlkit", "web3", "web3.providers.eth_tester", "web3.providers.rpc"),
    *("apepay", "jwcrypto.jwt", "quattro", "silverback.main", "silverback.recorder", "uvicorn.lifespan.on"),
    *("web3.utils.subscriptions", "yaspin"),
    *("uvicorn.loops.auto", "uvicorn.protocols.http.h11_impl"),
)


@dataclass(frozen=True)
class Run:
    """What a launcher wants to be run: a program, with its arguments."""

    program: str
    arguments: list[str]
    mask: int
    folder: bytes
    environment: dict[bytes, bytes]
    files: list[int]


def import_everything() -> None:
    for name in MODULES:
        importlib.import_module(name)
    for room in ROOMS:
        package = importlib.import_module(room)
        for found in pkgutil.walk_packages(package.__path__, f"{room}."):
            with contextlib.suppress(ImportError):  # needs an extra that isn't installed
                importlib.import_module(found.name)


def receive(connection: socket.socket) -> Run:
    """Receive a run: its length, three open files, then its parts, each ended by a zero byte."""
    space = socket.CMSG_SPACE(3 * array.array("i").itemsize)
    data, [(_, _, descriptors)], _, _ = connection.recvmsg(8, space)
    files = array.array("i")
    files.frombytes(descriptors)
    rest = int.from_bytes(data, "little")
    received = bytearray()
    while len(received) < rest:
        received += connection.recv(rest - len(received)) or exit_with_launcher()
    count, mask, folder, *parts = bytes(received[:-1]).split(b"\0")
    program, *arguments = [os.fsdecode(part) for part in parts[: int(count)]]
    environment = dict(part.split(b"=", 1) for part in parts[int(count) :])  # type: ignore[misc]
    return Run(program, arguments, int(mask), folder, environment, list(files))


def exit_with_launcher() -> bytes:
    raise ConnectionError("the launcher ended while it told what to run")


def serve(listener: socket.socket) -> Run | None:
    """Fork for each launcher. Returns in the child, with what it has to run; in the server when stdin ends."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process

    def signal_child(handle: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)

    while True:
        for key, _ in waiting.select():
            if key.fileobj == 0:
                for handle in children:
                    signal_child(handle, signal.SIGKILL)
                return None
            if key.fileobj is listener:
                connection, _ = listener.accept()
                try:
                    run = receive(connection)
                except (ConnectionError, ValueError):
                    connection.close()
                    continue
                child = os.fork()
                if child == 0:
                    # Closed now: what is found to be garbage later would close a file of the program by its number.
                    waiting.close()
                    for other in (connection, *(one for _, one in children.values())):
                        other.close()
                    return run
                for file in run.files:
                    os.close(file)
                handle = os.pidfd_open(child)
                children[handle] = (child, connection)
                waiting.register(handle, selectors.EVENT_READ)
                waiting.register(connection, selectors.EVENT_READ, handle)
            elif isinstance(key.fileobj, socket.socket):  # a signal, or the launcher was killed
                try:
                    numbers = key.fileobj.recv(64)
                except ConnectionError:
                    numbers = b""
                for number in numbers or [signal.SIGKILL]:
                    signal_child(key.data, number)
                if not numbers:
                    waiting.unregister(key.fileobj)
            else:
                handle = key.fileobj if isinstance(key.fileobj, int) else key.fileobj.fileno()
                child, connection = children.pop(handle)
                _, status = os.waitpid(child, 0)
                waiting.unregister(handle)
                with contextlib.suppress(KeyError):
                    waiting.unregister(connection)
                os.close(handle)
                with contextlib.suppress(OSError):
                    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))
                connection.close()


def become(run: Run) -> None:
    """Be what the launcher started, as if Python had been started with its environment."""
    os.setsid()
    os.umask(run.mask)
    os.chdir(run.folder)
    for number, file in enumerate(run.files):
        os.dup2(file, number)
    os.closerange(3, 4096)
    os.environ.clear()
    os.environb.update(run.environment)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))

    def text(file: int, mode: str, **options: Any) -> Any:
        raw: Any = io.FileIO(file, mode, closefd=False)
        buffer = (
            raw if mode == "w" and unbuffered else io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        )
        wrapper = io.TextIOWrapper(buffer, encoding="utf-8", write_through=mode == "w" and unbuffered, **options)
        wrapper.mode = mode  # type: ignore[misc]
        return wrapper

    sys.stdin = sys.__stdin__ = text(0, "r", errors="strict")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = text(1, "w", errors="strict", line_buffering=os.isatty(1))  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = text(2, "w", errors="backslashreplace", line_buffering=True)  # type: ignore[misc]


def run_program(run: Run) -> int:
    """Run the command or module as Python would; return its exit code."""
    try:
        match run.arguments:
            case ["-c", code, *arguments] if run.program != APE:
                sys.argv, sys.path[0] = ["-c", *arguments], ""
                exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
            case ["-m", module, *arguments] if run.program != APE:
                sys.argv, sys.path[0] = ["-m", *arguments], os.getcwd()  # noqa: PTH109 - as Python does
                sys.modules.pop(f"{module}.__main__", None)
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            case arguments:
                sys.argv, sys.path[0] = [run.program, *arguments], os.path.dirname(run.program)  # noqa: PTH120 - likewise
                runpy.run_path(run.program, run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return -signal.SIGINT
    except BaseException:  # noqa: BLE001 - what Python does with it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def end(code: int) -> NoReturn:
    """End as Python does, but without taking apart each module, which would copy all of the server's memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = 120
    if file := os.environ.get(PEAK):
        Path(file).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        listener.listen(64)
        print("listening", flush=True)
        sys.executable = PYTHON  # which modules keep that are imported now
        import_everything()
        from ape.utils.basemodel import ManagerAccessMixin

        made = [name for name, value in vars(ManagerAccessMixin).items() if getattr(value, "_cache", None) is not None]
        assert not made, f"made before the fork, with the wrong environment: {made}"
        gc.collect()
        gc.freeze()
        run = serve(listener)
    if run is not None:
        become(run)
        end(run_program(run))


if __name__ == "__main__":
    SOCKET, APE, PYTHON = sys.argv[1:]
    main()
