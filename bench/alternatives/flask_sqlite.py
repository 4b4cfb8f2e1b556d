"""The baseline of the field: tokens for cards with Flask and SQLite, as one writes it in an afternoon, but with care.

AES-256-GCM and HMAC-SHA-256 by `cryptography` and the standard library, a commit to disk for each new card. Its keys are
in its memory, and it has neither authorization nor an audit log. Only the bench runs it.

    gunicorn flask_sqlite:app           serves POST /v1/tokenize and /v1/detokenize
    python flask_sqlite.py < PANS       makes tokens in one transaction, and prints them
"""

import hmac
import os
import sqlite3
import sys
import threading
import uuid

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flask import Flask, jsonify, request

app = Flask(__name__)
local = threading.local()
writing = threading.Lock()
MAC = bytes(range(32))
AES = AESGCM(bytes(range(32, 64)))


def database():
    """This thread's connection."""
    if not hasattr(local, "database"):
        local.database = sqlite3.connect(os.environ["CARDS"], isolation_level=None, timeout=30)
        local.database.execute("PRAGMA journal_mode = WAL")
        local.database.execute("PRAGMA synchronous = FULL")
        local.database.execute("PRAGMA cache_size = -262144")
        local.database.execute(
            "CREATE TABLE IF NOT EXISTS cards"
            " (token TEXT PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, sealed BLOB NOT NULL) WITHOUT ROWID"
        )
    return local.database


def make(pan):
    """A token for a card, and whether it is new."""
    fingerprint = hmac.digest(MAC, pan, "sha256")
    find = ("SELECT token FROM cards WHERE fingerprint = ?", (fingerprint,))
    known = database().execute(*find).fetchone()
    if known:
        return known[0], False
    token, nonce = str(uuid.uuid4()), os.urandom(12)
    row = (token, fingerprint, nonce + AES.encrypt(nonce, pan, token.encode()))
    if database().execute("INSERT OR IGNORE INTO cards VALUES (?, ?, ?)", row).rowcount == 0:
        return database().execute(*find).fetchone()[0], False
    return token, True


@app.post("/v1/tokenize")
def tokenize():
    """`{"pan"}` in, `{"token"}` out."""
    pan = request.get_json()["pan"].encode()
    known = database().execute(
        "SELECT token FROM cards WHERE fingerprint = ?", (hmac.digest(MAC, pan, "sha256"),)
    ).fetchone()
    if known:
        return jsonify(token=known[0]), 200
    # SQLite has one writer: waiting here is cheaper than being sent away by it.
    with writing:
        token, created = make(pan)
    return jsonify(token=token), 201 if created else 200


@app.post("/v1/detokenize")
def detokenize():
    """`{"token"}` in, `{"pan"}` out."""
    token = request.get_json()["token"]
    row = database().execute("SELECT sealed FROM cards WHERE token = ?", (token,)).fetchone()
    if row is None:
        return jsonify(code="token_not_found"), 404
    return jsonify(pan=AES.decrypt(row[0][:12], row[0][12:], token.encode()).decode())


if __name__ == "__main__":
    database().execute("BEGIN")
    for line in sys.stdin.buffer:
        print(make(line.strip())[0])
    database().execute("COMMIT")
