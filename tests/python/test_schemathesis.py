"""Requests made up from the OpenAPI document, good and bad: no answer is a failure, or one that the document lacks.

Schemathesis tries every operation's limits, with a JWT and without, and with one `VAULT_TEST_EXAMPLES` (15) chance requests
to each operation and as many chains of them.
"""

import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

from support import SEED

CONFIG = pathlib.Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("VAULT_TEST_EXAMPLES", "15")
PATIENCE_SECONDS = 300 + 20 * int(EXAMPLES)


@pytest.fixture(scope="module")
def port(vault):
    """A port of the loopback that leads to the vault's socket: Schemathesis speaks TCP only."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_forward_all, args=(server, vault.directory / "vaultd.sock"), daemon=True).start()
        yield server.getsockname()[1]


def _forward_all(server, path):
    while True:
        try:
            near = server.accept()[0]
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(path))
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_forward, args=(source, sink), daemon=True).start()


def _forward(source, sink):
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()


@pytest.mark.parametrize("known", [True, False], ids=["with every scope", "without a JWT"])
def test_every_answer_is_in_the_document(vault, port, tmp_path, known):
    options = ["--max-examples", EXAMPLES, "--seed", SEED, "--generation-database", "none"]
    # The rest of the document is on the other socket.
    options += ["--exclude-tag", "admin"]
    options += ["--continue-on-failure", "--no-color", "--warnings", "off"]
    if known:
        options += ["--header", f"Authorization: Bearer {vault.jwt}"]
    else:
        options += ["--phases", "coverage"]
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    ran = subprocess.run(
        [program, "--config-file", CONFIG, "run", f"http://127.0.0.1:{port}/v1/openapi.json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
