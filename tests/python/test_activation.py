"""systemd's side of the bargain: sockets handed over, readiness told (sd_listen_fds(3), sd_notify(3))."""

import http.client
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import httpx
import pytest

from support import REPOSITORY, Vault

FIRST_DESCRIPTOR = 3
PATIENCE_SECONDS = 60
END_SECONDS = 30
# At its end, the daemon keeps a connection without a request for half a second.
SOON_SECONDS = 0.4
TRIES = 5


@pytest.fixture
def stopped_vault():
    """The directory of a vault that was made and is stopped."""
    with tempfile.TemporaryDirectory(prefix="va", dir="/tmp") as directory:
        vault = Vault(directory)
        vault.stop()
        yield pathlib.Path(directory)


def listening(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def binary():
    return os.environ.get("VAULTD_BIN", REPOSITORY / "target/debug/vaultd")


def spawn(directory, sockets, notify, **environment):
    """Starts `vaultd serve` the way systemd does."""
    program = binary()
    pid = os.fork()
    if pid == 0:
        for place, listener in enumerate(sockets.values()):
            os.dup2(listener.fileno(), FIRST_DESCRIPTOR + place)
        environment = {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(sockets),
            "NOTIFY_SOCKET": str(notify),
            **environment,
        }
        config = str(directory / "vaultd.toml")
        os.execve(program, [str(program), "serve", "--config", config], environment)
    return pid


def ended(pid):
    """The exit code of the daemon `pid`, which has to end by itself."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        has_ended, status = os.waitpid(pid, os.WNOHANG)
        if has_ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"vaultd does not end in {END_SECONDS} s")


class Kept(http.client.HTTPConnection):
    """A connection that is kept, and tries nothing twice."""

    def __init__(self, path):
        super().__init__("vault", timeout=PATIENCE_SECONDS)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def get(self):
        self.request("GET", "/healthz")
        answer = self.getresponse()
        answer.read()
        return answer


def test_sockets_are_taken_over_and_readiness_is_told(stopped_vault):
    directory = stopped_vault
    pid, notify, _ = serving(directory)
    try:
        for name in ("vaultd.sock", "admin.sock"):
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(directory / name))) as client:
                assert client.get("http://vault/readyz").json()["ready"] is True
    finally:
        os.kill(pid, signal.SIGTERM)
        code = ended(pid)
    assert code == 0
    assert b"STOPPING=1" in notify.recv(4096)
    assert (directory / "vaultd.sock").exists(), "a socket that systemd opened is systemd's to remove"


def test_a_socket_of_unknown_name_is_refused_where_there_is_no_place_for_it(stopped_vault):
    directory = stopped_vault
    sockets = {
        "vaultd.socket": listening(directory / "vaultd.sock"),
        "surprise": listening(directory / "third.sock"),
    }
    pid = spawn(directory, sockets, directory / "notify")
    assert ended(pid) == 1


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_sockets_without_a_name_are_known_by_their_place(stopped_vault):
    directory = stopped_vault
    (directory / "admin.sock").unlink(missing_ok=True)
    sockets = [directory / "x.sock", directory / "admin.sock"]
    command = ["systemd-socket-activate"]
    command += [f"--listen={path}" for path in sockets]
    command += [binary(), "serve", "--config", directory / "vaultd.toml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not all(path.exists() for path in sockets):
                assert time.monotonic() < deadline, "the sockets are not there"
                time.sleep(0.01)
            for path, needs_admin in zip(sockets, (False, True)):
                connection = Kept(path)
                assert connection.get().status == 200
                connection.request("GET", "/metrics")
                assert (connection.getresponse().status == 200) == needs_admin
        finally:
            daemon.terminate()
            try:
                daemon.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                raise
    assert daemon.returncode == 0


def both_sockets(directory):
    return {
        "vaultd.socket": listening(directory / "vaultd.sock"),
        "vaultd-admin.socket": listening(directory / "admin.sock"),
    }


def serving(directory, **environment):
    """A daemon behind two sockets of ours that says when it is ready; gives its pid, its notifications and the sockets."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(directory / "notify"))
    notify.settimeout(PATIENCE_SECONDS)
    sockets = both_sockets(directory)
    pid = spawn(directory, sockets, directory / "notify", **environment)
    assert b"READY=1" in notify.recv(4096)
    return pid, notify, sockets


def told(notify, what):
    """The next notification that has `what`; the watchdog's come between."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        message = notify.recv(4096)
        if what in message:
            return message
    raise AssertionError(f"{what} is not told in {PATIENCE_SECONDS} s")


def last_answers(pid, connections):
    """What a daemon that ends answers on `connections`; nothing where this machine did not ask soon enough."""
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.1)
    try:
        return [connection.get() for connection in connections]
    except ConnectionError:
        if time.monotonic() - begun < SOON_SECONDS:
            raise
        return []


def test_a_kept_connection_is_ended_with_an_answer_or_refuses_what_is_written(stopped_vault):
    directory = stopped_vault
    sockets = both_sockets(directory)
    for _ in range(TRIES):
        pid = spawn(directory, sockets, directory / "notify")
        busy, idle, fresh = (Kept(directory / "vaultd.sock") for _ in range(3))
        for connection in (busy, idle):
            assert connection.get().getheader("connection") is None
        fresh.connect()
        # So that its connection is accepted, and not left to the next daemon.
        assert busy.get().status == 200

        answers = [
            (answer.status, answer.getheader("connection")) for answer in last_answers(pid, (busy, fresh))
        ]
        assert ended(pid) == 0
        # An answer from before the daemon had heard the signal says nothing of its end.
        if answers and (200, None) not in answers:
            break
    assert answers == [(200, "close")] * 2
    with pytest.raises(BrokenPipeError):
        idle.sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: vault\r\n\r\n")

    # Who connects meanwhile waits for the next daemon.
    waiting = Kept(directory / "vaultd.sock")
    waiting.request("GET", "/healthz")
    pid = spawn(directory, sockets, directory / "notify")
    try:
        assert waiting.getresponse().status == 200
    finally:
        os.kill(pid, signal.SIGTERM)
        ended(pid)


def test_the_watchdog_is_fed_while_the_daemon_works(stopped_vault):
    pid, notify, _ = serving(stopped_vault, WATCHDOG_USEC="2000000")
    try:
        for _ in range(3):
            assert notify.recv(4096) == b"WATCHDOG=1\n"
        os.kill(pid, signal.SIGHUP)
        assert b"MONOTONIC_USEC=" in told(notify, b"RELOADING=1")
        told(notify, b"READY=1")
    finally:
        os.kill(pid, signal.SIGTERM)
        ended(pid)
