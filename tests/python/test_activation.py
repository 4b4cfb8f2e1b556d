"""systemd's side of the bargain: sockets handed over, readiness told (sd_listen_fds(3), sd_notify(3))."""

import os
import pathlib
import signal
import socket
import tempfile

import httpx
import pytest

from support import REPOSITORY, Vault

FIRST_DESCRIPTOR = 3


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


def spawn(directory, sockets, notify):
    """Starts `vaultd serve` the way systemd does."""
    binary = os.environ.get("VAULTD_BIN", REPOSITORY / "target/debug/vaultd")
    pid = os.fork()
    if pid == 0:
        for place, listener in enumerate(sockets.values()):
            os.dup2(listener.fileno(), FIRST_DESCRIPTOR + place)
        environment = {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(sockets),
            "NOTIFY_SOCKET": str(notify),
        }
        config = str(directory / "vaultd.toml")
        os.execve(binary, [str(binary), "serve", "--config", config], environment)
    return pid


def test_sockets_are_taken_over_and_readiness_is_told(stopped_vault):
    directory = stopped_vault
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(directory / "notify"))
    notify.settimeout(60)
    sockets = {
        "vaultd.socket": listening(directory / "vaultd.sock"),
        "vaultd-admin.socket": listening(directory / "admin.sock"),
    }
    pid = spawn(directory, sockets, directory / "notify")
    try:
        assert b"READY=1" in notify.recv(4096)
        for name in ("vaultd.sock", "admin.sock"):
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(directory / name))) as client:
                assert client.get("http://vault/readyz").json()["ready"] is True
    finally:
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"STOPPING=1" in notify.recv(4096)
    assert (directory / "vaultd.sock").exists(), "a socket that systemd opened is systemd's to remove"


def test_a_socket_of_unknown_name_is_refused(stopped_vault):
    directory = stopped_vault
    pid = spawn(directory, {"surprise": listening(directory / "vaultd.sock")}, directory / "notify")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
