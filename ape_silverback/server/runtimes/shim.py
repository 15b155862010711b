"""Stands between the server and one bot's process, so that the bot outlives the server.

Run as a script that imports next to nothing, since there is one for each bot: ``shim.py FOLDER``. What to run comes
through stdin. The shim holds a lock in the bot's folder for as long as anything of the bot runs, and writes the run
file itself: a server that is killed at any moment leaves either no run or one that the next server finds. It stamps
each line that the bot prints with the time, appends it to the bot's log, and records how the bot ended. All that the
bot started ends with it. At rest it waits in one poll; signals do the rest:

- SIGTERM: asks the bot to end, and ends it once its grace has passed.
- SIGUSR1: ends the bot, and all that it started, at once.
"""

from __future__ import annotations

import _signal as signals  # type: ignore[import-not-found]  # `signal` imports enum, a tenth of this process
import os
import select
import sys
import time

STARTED = b"Startup complete"
"""What the bot SDK logs when its start is complete."""

LONGEST_PART = 64 * 1024
"""Bytes of a line after which it is written, ended or not."""

RUN_FILE_SIZE = 1024
"""Bytes of the run file: written in place, so that a full disk can't keep the end of a run out of it."""

LOG_BOUND = 50 * 1024 * 1024
LOG_FILES = 5
"""Bytes of a bot's log, and the files that they are divided into: the oldest one is deleted when a new one begins."""

RETRY_LOG = 5
"""Seconds until it is tried again to log how many lines a full disk has cost."""

BUSY = 200
"""Exit code: another shim runs this bot."""

NO_ORDER = 201
"""Exit code: what to run didn't arrive whole."""

END_OF_ORDER = b"end of order"


class LogWriter:
    """Appends to the log of a bot, in files of bounded size: ``log.1``, ``log.2`` and so on.

    A line is written as a whole or not at all. When the disk is full, lines are dropped and counted; the count is
    logged once there is room again.

    Args:
        base: path of the log, which the numbers are appended to.
        bound: bytes of all its files together.
        files: how many there are at most.
    """

    def __init__(self, base: str, bound: int = LOG_BOUND, files: int = LOG_FILES) -> None:
        self._base = base
        self._files = files
        self._most = max(bound // files, 1)
        self._number = max(numbers_of(base), default=0)
        self._handle = -1
        self._size = 0
        self.dropped = 0

    def write(self, lines: bytes) -> None:
        """Append lines, each of which ends with a newline and is stamped with the time of now."""
        stamp = now() + b" "
        self.write_stamped(stamp + lines[:-1].replace(b"\n", b"\n" + stamp) + b"\n")

    def write_stamped(self, lines: bytes) -> None:
        """Append lines that have their stamps."""
        if self.dropped:
            self.tell_dropped()
        if self.dropped or not self._append(lines):
            self.dropped += lines.count(b"\n")

    def tell_dropped(self) -> None:
        """Log how many lines were dropped, if there is room."""
        line = b"%s WARNING:  %d lines of this log were dropped: there was no room on the disk\n" % (
            now(),
            self.dropped,
        )
        if self._append(line):
            self.dropped = 0

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _append(self, text: bytes) -> bool:
        try:
            if self._handle < 0 or (self._size and self._size + len(text) > self._most):
                self._open_next()
            written = 0
            try:
                while written < len(text):
                    written += os.write(self._handle, text[written:])
            except OSError:
                os.ftruncate(self._handle, self._size)
                return False
            self._size += written
        except OSError:
            return False
        return True

    def _open_next(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if self._handle < 0 and self._number:  # that of the run before
            handle = os.open(f"{self._base}.{self._number}", flags, 0o600)
            size = os.fstat(handle).st_size
            if size < self._most:
                self._handle, self._size = handle, size
                return
            os.close(handle)
        handle = os.open(f"{self._base}.{self._number + 1}", flags, 0o600)
        self.close()
        self._handle, self._size = handle, 0
        self._number += 1
        for number in numbers_of(self._base):
            if number <= self._number - self._files:
                os.unlink(f"{self._base}.{number}")


def numbers_of(base: str) -> list[int]:
    """Return the numbers of the files that a log has, unordered."""
    folder, _, name = base.rpartition("/")
    prefix = name + "."
    return [
        int(one[len(prefix) :]) for one in os.listdir(folder) if one.startswith(prefix) and one[len(prefix) :].isdigit()
    ]


def now() -> bytes:
    """Return the time as a line of a log begins with it."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return b"%d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (*time.gmtime(seconds)[:6], rest // 1000)


class Shim:
    """One run of a bot.

    Args:
        folder: the bot's, with its log and the run file.
        lock: the bot's lock, which this process holds.
        order: what to run: grace in seconds, bound of the log in bytes, folder of its control group or nothing, work
            folder, number of arguments, arguments, environment.
    """

    def __init__(self, folder: str, lock: int, order: list[bytes]) -> None:
        grace, bound, group, cwd, count, *rest = order
        self.folder = folder
        self.lock = lock
        self.grace = float(grace)
        self.group = group
        self.cwd = cwd
        self.command = rest[: int(count)]
        self.environment = dict(one.split(b"=", 1) for one in rest[int(count) :])
        self.log = LogWriter(folder + "/log", int(bound))
        self.handle = os.open(folder + "/run.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.facts = b'"pid": %d, "ticks": "%s", "boot": "%s", "started": "%s"' % (os.getpid(), *identity(), now())
        self.bot = 0
        self.code: int | None = None
        self.asked = False
        self.kill_at = 0.0
        self.ready = False
        self.logging = False
        self.write_run_file()

    def run(self) -> None:
        """Run the bot to its end, and to the end of all that it started."""
        pipe, out = os.pipe()
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signals.set_wakeup_fd(wake, warn_on_full_buffer=False)
        handled = {signals.SIGTERM, signals.SIGUSR1, signals.SIGCHLD, signals.SIGALRM}
        signals.pthread_sigmask(signals.SIG_BLOCK, handled)  # one that comes before there is a bot must not be lost
        parent = os.getpid()
        self.bot = os.fork()
        if self.bot == 0:
            self.become_bot(out, handled, parent)
        os.close(out)
        self.environment.clear()
        signals.signal(signals.SIGTERM, self.on_stop)
        signals.signal(signals.SIGUSR1, self.on_kill)
        signals.signal(signals.SIGCHLD, self.on_child)
        signals.signal(signals.SIGALRM, self.on_alarm)
        self.write_run_file()
        signals.pthread_sigmask(signals.SIG_UNBLOCK, handled)
        self.copy(pipe, woken)
        signals.pthread_sigmask(signals.SIG_BLOCK, handled)
        self.end_rest()
        if self.log.dropped:
            self.log.tell_dropped()
        self.write_run_file(ended=True)

    def become_bot(self, out: int, handled: set[int], parent: int) -> None:
        """Turn this process, a fork of the shim, into the bot."""
        try:
            os.setsid()
            if sys.platform == "linux":
                import ctypes

                ctypes.CDLL(None).prctl(1, int(signals.SIGKILL))  # PR_SET_PDEATHSIG: it must not go on unwatched
                if os.getppid() != parent:
                    os._exit(1)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if self.group:
                write_into(self.group + b"/cgroup.procs", b"0")
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            signals.pthread_sigmask(signals.SIG_UNBLOCK, handled)
            os.chdir(self.cwd)
            os.execve(self.command[0], self.command, self.environment)
        except OSError as error:
            os.write(2, b"ERROR:    can't be started: %s\n" % str(error).encode("utf8", "replace"))
        finally:
            os._exit(127)

    def copy(self, pipe: int, woken: int) -> None:
        """Copy what the bot prints, until it has ended and nothing that it started can print any more.

        Args:
            pipe: what they print.
            woken: gets a byte with each signal, so that one that comes just before the waiting ends it too.
        """
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        ready.register(woken, select.POLLIN)
        rest, is_open = b"", True
        while is_open or self.code is None:  # a bot can close what it prints to, and go on
            for handle, _ in ready.poll():
                chunk = os.read(handle, LONGEST_PART)
                if handle == woken:
                    continue
                if not chunk:
                    is_open = False
                    ready.unregister(pipe)
                rest = self.take_whole(rest + chunk)
        if rest:
            self.take(rest + b"\n")

    def take_whole(self, text: bytes) -> bytes:
        """Log the lines of a text that are whole, or too long to wait for their ends, and return the rest."""
        end = text.rfind(b"\n") + 1
        if end:
            self.take(text[:end])
        rest = text[end:]
        if len(rest) >= LONGEST_PART:
            self.take(rest + b"\n")
            return b""
        return rest

    def take(self, lines: bytes) -> None:
        """Log lines."""
        if b"\r\n" in lines:
            lines = lines.replace(b"\r\n", b"\n")
        self.logging = True
        self.log.write(lines)
        self.logging = False
        if self.log.dropped and not self.kill_at:
            signals.alarm(RETRY_LOG)
        if not self.ready and STARTED in lines:
            self.ready = True
            self.write_run_file()

    def on_stop(self, *_: object) -> None:
        """Ask the bot to end; being asked again changes nothing."""
        if not self.asked and self.code is None:
            self.asked = True
            self.kill_at = time.monotonic() + self.grace
            send(self.bot, signals.SIGTERM)
            signals.setitimer(signals.ITIMER_REAL, max(self.grace, 0.01))

    def on_kill(self, *_: object) -> None:
        """End the bot, and all that it started."""
        self.kill_at = time.monotonic()
        if self.code is None:
            send(-self.bot, signals.SIGKILL)
            send(self.bot, signals.SIGKILL)

    def on_alarm(self, *_: object) -> None:
        """Do what is due."""
        if self.kill_at and time.monotonic() >= self.kill_at - 0.01:
            self.on_kill()
        elif self.kill_at:
            signals.setitimer(signals.ITIMER_REAL, max(self.kill_at - time.monotonic(), 0.01))
        elif self.log.dropped:
            if not self.logging:  # this interrupts what the shim is at
                self.log.tell_dropped()
            if self.log.dropped:
                signals.alarm(RETRY_LOG)

    def on_child(self, *_: object) -> None:
        """Take note of ends: with the bot ends all that it started, and then the pipe is at its end."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.bot:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code
                send(-self.bot, signals.SIGKILL)  # its group, before the number can be another's
                self.end_rest()

    def end_rest(self) -> None:
        """End all that the bot started."""
        if self.group:
            write_into(self.group + b"/cgroup.kill", b"1")
        end_children()
        if self.group:
            try:
                os.rmdir(self.group)
            except OSError:
                pass  # it was removed before

    def write_run_file(self, *, ended: bool = False) -> None:
        """Write what is known of the run, and wake the server up."""
        text = b'{%s, "bot": %d, "ready": %s' % (self.facts, self.bot, b"true" if self.ready else b"false")
        if ended:
            text += b', "code": %d, "ended": "%s"' % (self.code or 0, now())
        os.pwrite(self.handle, (text + b"}").ljust(RUN_FILE_SIZE), 0)
        if ended:
            os.lockf(self.lock, os.F_ULOCK, 0)
        try:
            events = os.open(self.folder.rpartition("/")[0] + "/events", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(events, b"\n")
            os.close(events)
        except OSError:
            pass  # there is no server now


def end_children() -> None:
    """End all processes below this one: those whose parents ended have become its children."""
    while True:
        for pid in children():
            send(pid, signals.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Return the children of this process, on systems that tell."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def write_into(path: bytes, content: bytes) -> None:
    """Write into a file of the kernel, which may refuse it: then the rest has to do."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, content)
        finally:
            os.close(handle)
    except OSError:
        pass


def send(pid: int, signal: int) -> None:
    """Send a signal to a process, or to a group if it is negative, that may have ended."""
    try:
        os.kill(pid, signal)
    except OSError:
        pass


def identity() -> tuple[bytes, bytes]:
    """Return what identifies this process even if its number is used again: start in ticks, and the boot."""
    try:
        with open("/proc/self/stat", "rb") as stat, open("/proc/sys/kernel/random/boot_id", "rb") as boot:
            return stat.read().rpartition(b")")[2].split()[19], boot.read().strip()
    except OSError:  # not on Linux: the lock alone has to do
        return b"", b""


def adopt_orphans(folder: str) -> None:
    """Become the parent of what loses its parent below, and begin again without what that takes.

    The kernel keeps the setting when a process executes another program, and forgets the modules.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    # Imported, so that its bytecode is cached: compiling takes memory that a process of Python doesn't give back.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import shim; shim.main(sys.argv[2])"
    here = __file__.rpartition("/")[0]
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-E", "-c", code, here, folder])


def read_order() -> list[bytes]:
    """Return what to run."""
    content = b""
    while chunk := os.read(0, LONGEST_PART):
        content += chunk
    *order, end = content.split(b"\0")
    if end != END_OF_ORDER:
        sys.exit(NO_ORDER)
    return order


def main(folder: str) -> None:
    """Run a bot, unless it runs already."""
    os.umask(0o077)
    try:
        lock = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.lockf(lock, os.F_TLOCK, 0)
        except OSError:
            sys.exit(BUSY)
        order = read_order()
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        shim = Shim(folder, lock, order)
    except OSError as error:
        sys.exit(error.errno or 1)
    shim.run()


if __name__ == "__main__":
    adopt_orphans(sys.argv[1])
