"""Callers under load, inside the container: none retries anything, so that nothing that goes wrong is hidden.

Half of them keep their connection, as a pool does, and half make one for each request. On the end of standard input they
finish what they have begun and print, as JSON, how many requests were answered and what went wrong.
"""

import collections
import http.client
import json
import socket
import sys
import threading
import time

from pans import pan

SOCKET = "/run/vaultd/vaultd.sock"
CALLERS = 8
PATIENCE_SECONDS = 60
# At a restart, the vault keeps a connection without a request for half a second.
IDLE_SECONDS = 0.3


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the vault's socket. After an answer with `connection: close` the next request connects anew."""

    def __init__(self):
        super().__init__("vault", timeout=PATIENCE_SECONDS)
        self.used = 0.0

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def call(connection, path, body, token=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    if time.monotonic() - connection.used > IDLE_SECONDS:
        connection.close()
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.used = time.monotonic()
    if answer.status not in (200, 201):
        raise ValueError(f"{answer.status} {text.decode()}")
    return json.loads(text)


class Caller(threading.Thread):
    def __init__(self, number, stop):
        super().__init__()
        self.number, self.stop, self.keeps = number, stop, number % 2 == 0
        self.answered, self.failures, self.slowest = 0, collections.Counter(), 0.0

    def run(self):
        connection = UnixConnection()
        token = call(connection, "/v1/login", {})["access_token"]
        while not self.stop.is_set():
            begun = time.monotonic()
            card = pan(self.number * 10**9 + self.answered)
            try:
                made = call(connection, "/v1/tokenize", {"pan": card}, token)
                shown = call(connection, "/v1/detokenize", {"token": made["token"]}, token)
                if shown["pan"] != card:
                    raise ValueError("another card came back")
                self.answered += 2
            except (OSError, http.client.HTTPException, ValueError) as error:
                keeps = "kept connection" if self.keeps else "new connection"
                self.failures[f"{keeps}: {type(error).__name__}: {error}"] += 1
                connection.close()
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if not self.keeps:
                connection.close()
        connection.close()


def main():
    stop = threading.Event()
    callers = [Caller(number, stop) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    print("running", flush=True)
    sys.stdin.read()
    stop.set()
    for caller in callers:
        caller.join()
    failures = sum((caller.failures for caller in callers), collections.Counter())
    answered = sum(caller.answered for caller in callers)
    slowest = round(max(caller.slowest for caller in callers), 2)
    print(json.dumps({"answered": answered, "failures": failures, "slowest_seconds": slowest}))


main()
