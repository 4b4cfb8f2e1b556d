"""A real vault, seen from outside: only what the contract promises, and no line of the project's Rust."""

import base64
import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time
import uuid

import httpx
import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
READY_SECONDS = 60
STOP_SECONDS = 20
EVERY_SCOPE = "tokenize detokenize detokenize:masked tokens:read tokens:write tokens:delete"

SEED = os.environ.get("VAULT_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
_random = random.Random(SEED)
_pans = []


def new_pan(length=16):
    """A card number that no test has used before, with a valid check digit."""
    while True:
        digits = "4" + "".join(_random.choice("0123456789") for _ in range(length - 2))
        pan = digits + str(-luhn_sum(digits + "0") % 10)
        if pan not in _pans:
            _pans.append(pan)
            return pan


def luhn_sum(digits):
    total = 0
    for place, digit in enumerate(int(d) for d in reversed(digits)):
        if place % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total


def masked(pan):
    return pan[:6] + "*" * (len(pan) - 10) + pan[-4:]


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Vault:
    """`vaultd dev` on a directory of its own."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.output = []
        self._ready = threading.Event()
        binary = os.environ.get("VAULTD_BIN", REPOSITORY / "target/debug/vaultd")
        self._process = subprocess.Popen(
            [str(binary), "dev", "--dir", str(self.directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        try:
            self._wait_until_ready()
            self.jwt = (self.directory / "token.jwt").read_text().strip()
            self.issuer_key = (self.directory / "issuer.key.pem").read_text()
            self.issuer_public_key = (self.directory / "issuer.pub.pem").read_text()
        except BaseException:
            self.kill()
            raise
        # The API alone: a header is there only if a test sets it.
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.directory / "vaultd.sock")),
            base_url="http://localhost",
            timeout=30,
        )

    def call(self, method, path, body=None, token=None, **more):
        """Sends JSON with the development JWT, or with `token`."""
        headers = {"authorization": f"Bearer {token or self.jwt}", **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.http.request(method, path, headers=headers, **more)

    def tokenize(self, pan, **fields):
        answer = self.call("POST", "/v1/tokenize", {"pan": pan, **fields})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def deleted_token(self):
        """A token that looks like any other and is unknown."""
        token = self.tokenize(new_pan())["token"]
        assert self.call("DELETE", f"/v1/tokens/{token}").status_code == 204
        return token

    def claims(self, **changes):
        """The claims of a good JWT for tenant `dev`; a change to `None` leaves a claim out."""
        now = int(time.time())
        known = jwt.decode(self.jwt, options={"verify_signature": False})
        claims = {
            "iss": "dev-issuer",
            "aud": known["aud"],
            "sub": "python-tests",
            "tenant": "dev",
            "scope": EVERY_SCOPE,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def headers(self, **changes):
        """The JOSE header of a good JWT; a change to `None` leaves a parameter out."""
        known = jwt.get_unverified_header(self.jwt)
        headers = {"alg": "RS256", "typ": "JWT", "kid": known["kid"], **changes}
        return {name: value for name, value in headers.items() if value is not None}

    def mint(self, key=None, headers=None, **claims):
        """A JWT signed by the development issuer, or by `key`."""
        headers = self.headers(**(headers or {}))
        return jwt.encode(
            self.claims(**claims), key or self.issuer_key, algorithm="RS256", headers=headers
        )

    def forge(self, sign=None, headers=None, **claims):
        """A JWT whose signature is `sign(signing input)`, or honest: what no library makes or lets one make."""
        texts = (self.headers(**(headers or {})), self.claims(**claims))
        return self.assemble(*(json.dumps(text) for text in texts), sign=sign)

    def assemble(self, headers, claims, sign=None):
        """A JWT of two JSON texts."""
        signed = ".".join(base64url(text.encode()) for text in (headers, claims))
        return f"{signed}.{base64url((sign or self.sign)(signed.encode()))}"

    def sign(self, signed):
        """The development issuer's RS256 signature."""
        key = serialization.load_pem_private_key(self.issuer_key.encode(), None)
        return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())

    def stop(self):
        """Ends the vault as a service manager does; it must end cleanly and have leaked nothing."""
        self.http.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"vaultd ignored SIGTERM for {STOP_SECONDS} s\n{self.log()}")
        self._reader.join()
        assert status == 0, f"vaultd ended with {status}\n{self.log()}"
        self._assert_nothing_leaked()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def log(self):
        return "".join(self.output)

    def _assert_nothing_leaked(self):
        log = self.log()
        leaks = ["the log"] if any(pan in log for pan in _pans) else []
        for path in self.directory.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                if any(pan.encode() in content for pan in _pans):
                    leaks.append(str(path.relative_to(self.directory)))
        assert not leaks, f"card numbers in {', '.join(leaks)} (VAULT_TEST_SEED={SEED})"

    def _read_output(self):
        for line in self._process.stdout:
            self.output.append(line)
            if line.startswith("ready"):
                self._ready.set()
        self._ready.set()  # so that a vault that fails early is noticed at once

    def _wait_until_ready(self):
        in_time = self._ready.wait(READY_SECONDS)
        if not any(line.startswith("ready") for line in self.output):
            why = "ended before it was ready" if in_time else f"not ready in {READY_SECONDS} s"
            raise AssertionError(f"vaultd: {why}\n{self.log()}")


def assert_problem(answer, status, code, sent=""):
    """`answer` is the RFC 9457 problem that the contract promises, and says nothing of card data in `sent`."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].split(";")[0].strip() == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    for member in ("type", "title", "detail", "request_id"):
        assert isinstance(problem[member], str) and problem[member], member
    assert answer.headers["x-request-id"] == problem["request_id"]
    if status == 401:
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer"), challenge
        # RFC 6750, 3.1: no error code if the request had no token at all.
        if code != "missing_token":
            assert 'error="invalid_token"' in challenge, challenge
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 0
    # Eight digits in a row are more than the first six or the last four, which may be shown.
    digits = "".join(character for character in sent if character.isdigit())
    for start in range(len(digits) - 7):
        assert digits[start : start + 8] not in answer.text, "the answer echoes the card number"
    return problem
