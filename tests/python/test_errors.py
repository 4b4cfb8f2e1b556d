"""Every way to ask wrongly, and the answer that says so."""

import base64
import hashlib
import hmac
import json
import time
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from support import assert_problem, new_pan

JSON = {"content-type": "application/json"}
DEEP = 10_000


def post(vault, content, headers=JSON, path="/v1/tokenize"):
    return vault.call("POST", path, content=content, headers=headers)


# Card numbers


@pytest.mark.parametrize(
    "pan",
    [
        "",
        "4111111111",
        "41111111111",
        "41111111111111111111",
        "4111111111111112",
        "4111111111111111x",
        "4111.1111.1111.1111",
        "4111111111111111\n",
        "٤١١١١١١١١١١١١١١١",
        "４１１１１１１１１１１１１１１１",
        "--------------",
        "4" * 10_000,
    ],
    ids=lambda pan: f"{pan[:20]!r}",
)
def test_a_bad_card_number(vault, pan):
    assert_problem(vault.call("POST", "/v1/tokenize", {"pan": pan}), 400, "invalid_pan", pan)


@pytest.mark.parametrize("pan", [4111111111111111, 4111111111111111.5, None, True, ["4111111111111111"], {}])
def test_a_card_number_that_is_not_a_string(vault, pan):
    answer = vault.call("POST", "/v1/tokenize", {"pan": pan})
    assert_problem(answer, 400, "invalid_request", json.dumps(pan))


# Bodies


def test_an_unknown_field(vault):
    pan = new_pan()
    for field in ({"cvv": "123"}, {"cvc": "123"}, {"PAN": pan}, {pan: "1"}):
        answer = vault.call("POST", "/v1/tokenize", {"pan": pan, **field})
        assert_problem(answer, 400, "invalid_request", pan)


def test_a_missing_field(vault):
    assert_problem(vault.call("POST", "/v1/tokenize", {"holder": "Ada"}), 400, "invalid_request")
    assert_problem(vault.call("POST", "/v1/detokenize", {}), 400, "invalid_request")


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "no-such-template"},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 1.5},
        {"expires_in": "60"},
        {"expires_in": 2**64},
        {"expiry_date": "13/30"},
        {"expiry_date": "next year"},
        {"holder": "x" * 201},
        {"metadata": {"nested": {}}},
        {"metadata": ["list"]},
    ],
    ids=str,
)
def test_a_field_with_a_bad_value(vault, fields):
    pan = new_pan()
    answer = vault.call("POST", "/v1/tokenize", {"pan": pan, **fields})
    assert_problem(answer, 400, "invalid_request", pan)


def test_a_duplicate_key(vault):
    one, two = new_pan(), new_pan()
    for body in (
        f'{{"pan":"{one}","pan":"{two}"}}',
        f'{{"pan":"{one}","pan":"{one}"}}',
        f'{{"pan":"{one}","metadata":{{"a":1,"a":2}}}}',
    ):
        answer = post(vault, body.encode())
        assert_problem(answer, 400, "invalid_request", one)
        assert two not in answer.text


def test_malformed_json(vault):
    pan = new_pan()
    for body in (f'{{"pan":"{pan}"', f"{{'pan':'{pan}'}}", f'{{"pan":"{pan}"}} x', f'{{"pan":"{pan}",}}'):
        assert_problem(post(vault, body.encode()), 400, "malformed_json", pan)


def test_json_that_is_not_an_object(vault):
    pan = new_pan()
    for body in ([pan], [{"pan": pan}], pan, int(pan), None):
        assert_problem(post(vault, json.dumps(body).encode()), 400, "invalid_request", pan)


def test_invalid_utf_8(vault):
    pan = new_pan()
    for body in (b'{"pan":"' + pan.encode() + b'\xff"}', b"\xff\xfe", b'{"pan":"\xc0\xaf"}'):
        assert_problem(post(vault, body), 400, "malformed_json", pan)


def test_json_nested_ten_thousand_deep(vault):
    pan = new_pan().encode()
    nested = b"[" * DEEP + b"]" * DEEP
    for body in (
        nested,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"pan":"' + pan + b'","metadata":{"a":' + nested + b"}}",
        b'{"unknown":' + nested + b',"pan":"' + pan + b'"}',
    ):
        answer = post(vault, body)
        assert answer.status_code == 400, answer.text
        code = answer.json()["code"]
        assert code in ("malformed_json", "invalid_request")
        assert_problem(answer, 400, code, pan.decode())
    assert vault.http.get("/healthz").status_code == 200


def test_a_body_of_two_mebibytes(vault):
    pan = new_pan()
    body = json.dumps({"pan": pan, "holder": "x" * (2 * 1024 * 1024)}).encode()
    assert_problem(post(vault, body), 413, "body_too_large", pan)
    chunked = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    assert_problem(post(vault, chunked), 413, "body_too_large", pan)


def test_an_empty_body(vault):
    assert_problem(post(vault, b""), 400, "malformed_json")


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"]
)
def test_a_wrong_content_type(vault, content_type):
    pan = new_pan()
    headers = {"content-type": content_type} if content_type else {}
    answer = post(vault, json.dumps({"pan": pan}).encode(), headers)
    assert_problem(answer, 415, "unsupported_media_type", pan)


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_batch_of_a_wrong_size(vault, count):
    pan = new_pan()
    answer = vault.call("POST", "/v1/tokenize/batch", {"items": [{"pan": pan}] * count})
    assert_problem(answer, 400, "invalid_request", pan)
    token = vault.tokenize(pan)["token"]
    answer = vault.call("POST", "/v1/detokenize/batch", {"tokens": [token] * count})
    assert_problem(answer, 400, "invalid_request", pan)


# Bearer tokens


@pytest.mark.parametrize("authorization", [None, "Basic dXNlcjpwYXNz"])
@pytest.mark.parametrize("method, path", [("POST", "/v1/tokenize"), ("GET", "/v1/tokens/x")])
def test_no_bearer_token(vault, method, path, authorization):
    headers = {**JSON, **({"authorization": authorization} if authorization else {})}
    pan = new_pan()
    content = json.dumps({"pan": pan}).encode() if method == "POST" else None
    answer = vault.http.request(method, path, content=content, headers=headers)
    assert_problem(answer, 401, "missing_token", pan)


def test_the_scope_of_every_endpoint_is_needed(vault):
    pan = new_pan()
    token = vault.tokenize(pan)["token"]
    endpoints = [
        ("tokenize", "POST", "/v1/tokenize", {"pan": pan}),
        ("tokenize", "POST", "/v1/tokenize/batch", {"items": [{"pan": pan}]}),
        ("detokenize", "POST", "/v1/detokenize", {"token": token}),
        ("detokenize", "POST", "/v1/detokenize/batch", {"tokens": [token]}),
        ("tokens:read", "GET", f"/v1/tokens/{token}", None),
        ("tokens:write", "PATCH", f"/v1/tokens/{token}", {"metadata": {}}),
        ("tokens:delete", "DELETE", f"/v1/tokens/{token}", None),
    ]
    scopes = {scope for scope, *_ in endpoints}
    for scope, method, path, body in endpoints:
        others = vault.mint(scope=" ".join(sorted(scopes - {scope})))
        assert_problem(vault.call(method, path, body, others), 403, "insufficient_scope", pan)
    for nothing in ("", None):
        answer = vault.call("POST", "/v1/tokenize", {"pan": pan}, vault.mint(scope=nothing))
        assert_problem(answer, 403, "insufficient_scope", pan)


def refused(vault, token, code="invalid_jwt"):
    pan = new_pan()
    answer = vault.call("POST", "/v1/tokenize", {"pan": pan}, token)
    assert_problem(answer, 401, code, pan)
    assert token not in answer.text


def test_an_expired_jwt(vault):
    now = int(time.time())
    refused(vault, vault.mint(iat=now - 600, exp=now - 120), "expired_jwt")


def test_a_jwt_within_the_leeway_is_accepted(vault):
    now = int(time.time())
    token = vault.mint(iat=now - 600, exp=now - 5)
    assert vault.call("POST", "/v1/tokenize", {"pan": new_pan()}, token).status_code == 201


def test_hs256_signed_with_the_public_key(vault):
    for key in (vault.issuer_public_key, vault.issuer_public_key.strip()):
        sign = lambda signed: hmac.digest(key.encode(), signed, hashlib.sha256)
        refused(vault, vault.forge(sign, headers={"alg": "HS256"}))


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", None, "RS512", "PS256", "ES256", ""])
def test_another_algorithm(vault, algorithm):
    refused(vault, vault.forge(lambda _: b"", headers={"alg": algorithm}))
    # A true RS256 signature does not help a header that says otherwise.
    refused(vault, vault.forge(headers={"alg": algorithm}))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "somebody-else"},
        {"aud": ["somebody-else"]},
        {"iss": "somebody-else"},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000, "exp": 4_000_000_300},
        {"exp": 4_000_000_000},
        {"aud": None},
        {"iss": None},
        {"exp": None},
        {"iat": None},
        {"sub": None},
    ],
    ids=str,
)
def test_wrong_or_missing_claims(vault, claims):
    # Not `mint`: PyJWT checks some of these itself.
    refused(vault, vault.forge(**claims))


def test_a_forged_jwt_without_a_fault_is_accepted(vault):
    """Else the tests around this one would prove nothing."""
    assert vault.call("POST", "/v1/tokenize", {"pan": new_pan()}, vault.forge()).status_code == 201


def test_a_duplicate_claim_or_header_parameter(vault):
    headers, claims = json.dumps(vault.headers()), json.dumps(vault.claims())
    refused(vault, vault.assemble(headers, claims[:-1] + ',"tenant":"other"}'))
    refused(vault, vault.assemble(headers[:-1] + ',"alg":"RS256"}', claims))


def test_a_jwt_signed_by_somebody_else(vault):
    stranger = rsa.generate_private_key(65_537, 2_048)
    refused(vault, vault.mint(key=stranger))
    numbers = stranger.public_key().public_numbers()
    encode = lambda n: base64.urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8)).rstrip(b"=").decode()
    jwk = {"kty": "RSA", "n": encode(numbers.n), "e": encode(numbers.e)}
    for header in (
        {"jwk": jwk},
        {"jku": "file:///etc/passwd"},
        {"x5u": "http://localhost/"},
        {"kid": "../../dev/null"},
        {"kid": None},
    ):
        refused(vault, vault.mint(key=stranger, headers=header))


def test_an_unknown_critical_header(vault):
    refused(vault, vault.mint(headers={"crit": ["x"], "x": 1}))


def test_a_damaged_jwt(vault):
    header, claims, signature = vault.mint().split(".")
    other_claims = vault.mint(scope="keys:rotate").split(".")[1]
    for token in (
        "x",
        "..",
        f"{header}.{claims}",
        f"{header}.{claims}.",
        f"{header}.{other_claims}.{signature}",
        f"{header}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{header}.{claims}.{signature}.{signature}",
    ):
        refused(vault, token)


# Tokens and paths


def each_use(token):
    return [
        ("POST", "/v1/detokenize", {"token": token}),
        ("POST", "/v1/detokenize", {"token": token, "reveal": "masked"}),
        ("GET", f"/v1/tokens/{token}", None),
        ("PATCH", f"/v1/tokens/{token}", {"metadata": {"a": 1}}),
        ("DELETE", f"/v1/tokens/{token}", None),
    ]


def test_an_unknown_token(vault):
    for method, path, body in each_use(vault.deleted_token()):
        assert_problem(vault.call(method, path, body), 404, "unknown_token")


def test_another_tenants_token_looks_like_an_unknown_one(vault):
    pan = new_pan()
    foreign, unknown = vault.tokenize(pan)["token"], vault.deleted_token()
    other = vault.mint(tenant="other")
    answers = []
    for token in (foreign, unknown):
        answers.append([])
        for method, path, body in each_use(token):
            answer = vault.call(method, path, body, other)
            problem = assert_problem(answer, 404, "unknown_token", pan)
            problem.pop("request_id")
            # What differs between any two answers.
            varies = ("x-request-id", "date", "ratelimit")
            headers = sorted(header for header in answer.headers.items() if not header[0].startswith(varies))
            answers[-1].append((problem, headers))
    assert answers[0] == answers[1]
    assert vault.call("POST", "/v1/detokenize", {"token": foreign}).json() == {"pan": pan}


def test_a_token_that_cannot_be_one(vault):
    for token in ("%20", "a" * 300, "%00", "%FF", "..%2F..", "4111111111111111'--"):
        answer = vault.call("GET", f"/v1/tokens/{token}")
        assert_problem(answer, 400, "invalid_token", token)
    for token in ("", " ", "\u0000", "ü" * 20):
        answer = vault.call("POST", "/v1/detokenize", {"token": token})
        assert_problem(answer, 400, "invalid_token")


def test_a_method_that_does_not_exist(vault):
    for method, path in (
        ("GET", "/v1/tokenize"),
        ("PUT", f"/v1/tokens/{uuid.uuid4()}"),
        ("POST", "/healthz"),
        ("DELETE", "/.well-known/jwks.json"),
    ):
        answer = vault.call(method, path)
        assert_problem(answer, 405, "method_not_allowed")
        # RFC 9110, 15.5.6.
        assert answer.headers["allow"]


def test_a_path_that_does_not_exist(vault):
    pan = new_pan()
    for path in ("/", "/v1", "/v2/tokenize", "/v1/tokens", "/v1/tokenize/", "/metrics", f"/{pan}"):
        assert_problem(vault.call("GET", path), 404, "not_found", pan)


def test_every_answer_has_its_own_request_id(vault):
    answers = [vault.http.get("/healthz"), vault.http.get("/nothing"), vault.call("GET", "/v1/tokenize")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
