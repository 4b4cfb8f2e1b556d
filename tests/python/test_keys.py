"""The operator's year, by a client that shares no code with the vault: rotate, rewrap, destroy."""

import time

import httpx
import jwt
import pytest

from support import assert_problem, new_pan

PATIENCE_SECONDS = 60


@pytest.fixture
def admin(vault):
    """Calls the admin socket with every scope, or with `token`."""
    transport = httpx.HTTPTransport(uds=str(vault.directory / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:

        def call(method, path, token=None):
            return client.request(method, path, headers={"authorization": f"Bearer {token or vault.jwt}"})

        yield call


def keys(admin, purpose):
    return [key for key in admin("GET", "/v1/keys").json()["keys"] if key["purpose"] == purpose]


def test_a_card_keeps_its_token_while_keys_are_rotated_rewrapped_and_destroyed(vault, admin):
    pan = new_pan()
    token = vault.tokenize(pan, holder="Grace Hopper")["token"]
    retired = [keys(admin, purpose)[-1] for purpose in ("record", "fingerprint", "holder")]
    for key in retired:
        rotated = admin("POST", f"/v1/keys/{key['purpose']}/rotate")
        assert rotated.status_code == 201, rotated.text
        assert (rotated.json()["version"], rotated.json()["state"]) == (key["version"] + 1, "active")
    assert vault.tokenize(pan) | {"token": token, "created": False} == vault.tokenize(pan)

    assert admin("POST", "/v1/rewrap").status_code == 202
    started = time.monotonic()
    while (progress := admin("GET", "/v1/rewrap").json())["state"] in ("running", "waiting"):
        assert time.monotonic() - started < PATIENCE_SECONDS, progress
        time.sleep(0.05)
    assert (progress["state"], progress["left"], progress["failed"]) == ("done", 0, 0)
    for key in retired:
        gone = admin("DELETE", f"/v1/keys/{key['purpose']}/{key['version']}")
        assert (gone.status_code, gone.json()["state"], gone.json()["records"]) == (200, "destroyed", 0), gone.text

    assert vault.tokenize(pan)["token"] == token
    assert vault.call("POST", "/v1/detokenize", {"token": token}).json()["pan"] == pan
    found = vault.call("POST", "/v1/tokens/search", {"holder": "grace hopper"}).json()["tokens"]
    assert token in [record["token"] for record in found]


def test_what_the_old_jwt_key_signed_verifies_until_it_ends(vault, admin):
    def login():
        return vault.http.post("/v1/login", json={"scopes": ["tokens:read"]}).json()["access_token"]

    old = login()
    version = keys(admin, "jwt")[-1]["version"]
    assert admin("POST", "/v1/keys/jwt/rotate").json()["version"] == version + 1
    new = login()
    kids = [jwt.get_unverified_header(token)["kid"] for token in (old, new)]
    assert kids[0] != kids[1]
    key_set = jwt.PyJWKSet.from_dict(vault.http.get("/.well-known/jwks.json").json())
    for token, kid in zip((old, new), kids):
        jwt.decode(token, key_set[kid].key, algorithms=["RS256"], audience="vaultd", issuer="vaultd")
        assert vault.call("GET", f"/v1/tokens/{vault.tokenize(new_pan())['token']}", token=token).status_code == 200
    assert_problem(admin("DELETE", f"/v1/keys/jwt/{version}"), 409, "key_in_use")


def test_keys_need_their_scopes(vault, admin):
    poor = vault.mint(scope="keys:read")
    assert admin("GET", "/v1/status", token=poor).status_code == 200
    for method, path in (
        ("POST", "/v1/keys/record/rotate"),
        ("POST", "/v1/rewrap"),
        ("DELETE", "/v1/keys/record/1"),
        ("POST", "/v1/reload"),
    ):
        assert_problem(admin(method, path, token=poor), 403, "insufficient_scope")
        assert_problem(admin(method, path, token=vault.mint(scope="tokenize")), 403, "insufficient_scope")
    assert_problem(admin("GET", "/v1/keys", token=vault.mint(scope="keys:rotate")), 403, "insufficient_scope")
