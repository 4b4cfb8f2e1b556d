"""What is known to have worked against other readers of JWTs, beyond what test_errors.py has: none of it is accepted."""

import base64
import json

import pytest

from support import assert_problem, base64url, new_pan

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def status(vault, token):
    pan = new_pan()
    answer = vault.call("POST", "/v1/tokenize", {"pan": pan}, token)
    if answer.status_code >= 300:
        assert_problem(answer, 401, "invalid_jwt", pan)
        assert token not in answer.text
    return answer.status_code


def text_of(claims, **raw):
    """The JSON text of the claims, with values that no JSON library writes."""
    text = json.dumps({name: value for name, value in claims.items() if name not in raw})
    return text[:-1] + "".join(f',"{name}":{value}' for name, value in raw.items()) + "}"


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e400", "1e10", "18446744073709551616", "9" * 400, "0x7fffffff", "null"]
)
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_a_date_that_is_no_number_or_a_huge_one(vault, claim, value):
    if (claim, value) == ("nbf", "null"):
        return  # an optional claim may be null
    token = vault.assemble(json.dumps(vault.headers()), text_of(vault.claims(), **{claim: value}))
    assert status(vault, token) == 401


@pytest.mark.parametrize(
    "audience", ["[]", "[[\"vaultd\"]]", "{\"0\":\"vaultd\"}", "[\"vaultd\",1]", "[null,\"vaultd\"]", "true", "\"VAULTD\"",
                 "\"vaultd \"", "\"vaultd\\u0000\"", "\"other vaultd\""]
)
def test_an_audience_of_another_form(vault, audience):
    assert status(vault, vault.assemble(json.dumps(vault.headers()), text_of(vault.claims(), aud=audience))) == 401


@pytest.mark.parametrize("algorithm", ["NONE", "none\u0000", " none", "RS256 ", "rs256", "RS256\u0000", "RSA256", "HS256"])
def test_an_algorithm_that_is_nearly_one(vault, algorithm):
    assert status(vault, vault.forge(headers={"alg": algorithm})) == 401
    assert status(vault, vault.forge(lambda _: b"", headers={"alg": algorithm})) == 401


@pytest.mark.parametrize("value", [["RS256"], {"alg": "RS256"}, 256, True, [["none"], "RS256"]], ids=str)
def test_an_algorithm_that_is_no_string(vault, value):
    assert status(vault, vault.forge(headers={"alg": value})) == 401


@pytest.mark.parametrize(
    "header",
    [
        {"b64": False, "crit": ["b64"]},
        {"crit": []},
        {"crit": "exp"},
        {"crit": None, "jwk": {}},
        {"jku": ""},
        {"x5u": ""},
        {"x5c": []},
        {"kid": ["a"]},
        {"kid": 0},
        {"kid": ""},
        {"kid": "' OR '1'='1"},
        {"kid": "/dev/null"},
        {"kid": "k\u0000"},
        {"typ": "JOSE+JSON"},
        {"typ": "envelope+jwt"},
        {"typ": ["JWT"]},
    ],
    ids=str,
)
def test_a_header_that_misleads(vault, header):
    assert status(vault, vault.forge(headers=header)) == 401


def test_a_payload_that_is_not_encoded(vault):
    """RFC 7797 without `crit`, as an attacker would send it: the claims in clear."""
    headers = base64url(json.dumps(vault.headers(b64=False)).encode())
    claims = json.dumps(vault.claims(), separators=(",", ":")).replace(".", "")
    signature = base64url(vault.sign(f"{headers}.{claims}".encode()))
    answer = vault.http.post(
        "/v1/tokenize",
        json={"pan": new_pan()},
        headers={"authorization": f"Bearer {headers}.{claims}.{signature}"},
    )
    assert answer.status_code == 401


def test_a_member_that_comes_twice_under_two_spellings(vault):
    headers, claims = json.dumps(vault.headers()), json.dumps(vault.claims())
    for twice in ('"\\u0061lg":"none"', '"al\\u0067":"RS256"', '"\\u006bid":"x"'):
        assert status(vault, vault.assemble(headers[:-1] + f",{twice}}}", claims)) == 401
    for twice in ('"\\u0065xp":9999999999', '"te\\u006eant":"other"', '"s\\u0063ope":"keys:rotate"'):
        assert status(vault, vault.assemble(headers, claims[:-1] + f",{twice}}}")) == 401
    # One that comes once may be spelled as JSON lets it be.
    assert status(vault, vault.assemble(headers.replace('"alg"', '"\\u0061lg"'), claims)) == 201


def test_a_jwt_within_a_jwt(vault):
    headers, inner = vault.headers(cty="JWT"), vault.forge()
    assert status(vault, vault.assemble(json.dumps(headers), inner)) == 401
    assert status(vault, vault.assemble(json.dumps(headers), json.dumps(inner))) == 401
    assert status(vault, vault.assemble(json.dumps(headers), f"[{json.dumps(vault.claims())}]")) == 401


def test_bytes_after_the_json(vault):
    headers, claims = json.dumps(vault.headers()), json.dumps(vault.claims())
    for more in ("{}", "\u0000", "x", ",", "}"):
        assert status(vault, vault.assemble(headers + more, claims)) == 401
        assert status(vault, vault.assemble(headers, claims + more)) == 401
    assert status(vault, vault.assemble("\ufeff" + headers, claims)) == 401


def test_another_base64(vault):
    header, claims, signature = vault.forge().split(".")
    # The last character of a signature of 256 bytes has four bits that mean nothing.
    assert len(signature) % 4 == 2
    last = ALPHABET.index(signature[-1])
    others = [ALPHABET[last | bits] for bits in range(1, 16)]
    for token in (
        *(f"{header}.{claims}.{signature[:-1]}{other}" for other in others),
        f"{header}.{claims}.{signature}==",
        f"{header}.{claims}.{signature}A",
        f"{header}.{claims}.{signature}AA",
        f"{header}.{claims}.{signature[:40]}%0a{signature[40:]}",
        f"{header}.{claims}.{base64.b64encode(base64.urlsafe_b64decode(signature + '==')).decode()}",
        f"{header}.{claims}.{signature[:-2]}",
        f".{header}.{claims}.{signature}",
        f"{header}..{claims}.{signature}",
    ):
        assert status(vault, token) == 401, token
    for space in ("\t", " "):
        for token in (f"{header}.{claims}{space}.{signature}", f"{header}.{space}{claims}.{signature}"):
            assert status(vault, token) == 401


def test_padding_that_is_signed(vault):
    """Signed as it is sent, so that only the form is wrong (RFC 7515, 2: no padding, no white space)."""
    headers, claims = (json.dumps(part).encode() for part in (vault.headers(), vault.claims()))
    for encode in (
        lambda data: base64.urlsafe_b64encode(data + b" " * ((2 - len(data)) % 3)).decode(),
        lambda data: base64url(data)[:8] + "\t" + base64url(data)[8:],
    ):
        for parts in ((encode(headers), base64url(claims)), (base64url(headers), encode(claims))):
            signed = ".".join(parts)
            assert status(vault, f"{signed}.{base64url(vault.sign(signed.encode()))}") == 401


def test_the_json_serialisation(vault):
    header, claims, signature = vault.forge().split(".")
    token = json.dumps({"protected": header, "payload": claims, "signature": signature}, separators=(",", ":"))
    assert status(vault, token) == 401
