"""The three stories of payment services, by a caller that knows JOSE from another library."""

import json
import time

import jwt
import pytest

from support import assert_problem, base64url, new_pan

AUDIENCE, ISSUER = "payment-gateway", "payment-service"


@pytest.fixture
def key_set(vault):
    return jwt.PyJWKSet.from_dict(vault.http.get("/.well-known/jwks.json").json())


def seal(vault, pan, **wishes):
    card = {"card_number": pan, "expiry_date": "12/31", "cvv": "123"}
    answer = vault.call("POST", "/v1/envelopes", {"meta_data": card, **wishes})
    assert answer.status_code == 200, answer.text
    assert pan not in answer.text
    return answer.json()


def open_envelope(vault, envelope):
    return vault.call("POST", "/v1/envelopes/open", {"jwt": envelope})


def signing_key(key_set, token):
    return key_set[jwt.get_unverified_header(token)["kid"]].key


def test_a_checkout_finds_a_card_by_the_holders_name(vault):
    pan = new_pan()
    made = vault.tokenize(pan, holder="Jürgen  Groß")
    assert vault.tokenize(pan)["token"] == made["token"]
    answer = vault.call("POST", "/v1/tokens/search", {"holder": "JÜRGEN GROSS"})
    assert [record["token"] for record in answer.json()["tokens"]] == [made["token"]]
    assert pan not in answer.text
    compared = vault.call("POST", "/v1/tokens/compare", {"token": made["token"], "pan": pan})
    assert compared.json() == {"equal": True}


def test_login_needs_no_secret_and_its_jwt_verifies(vault, key_set):
    answer = vault.http.post("/v1/login", json={"scopes": ["tokens:read"], "expires_in": 60})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    login = answer.json()
    assert (login["token_type"], login["scope"], login["expires_in"]) == ("Bearer", "tokens:read", 60)
    token = login["access_token"]
    claims = jwt.decode(
        token, signing_key(key_set, token), algorithms=["RS256"], audience="vaultd", issuer="vaultd"
    )
    assert claims["tenant"] == login["tenant"]
    assert claims["exp"] - claims["iat"] == 60
    assert set(claims["cnf"]) == {"uid"}
    assert_problem(vault.call("POST", "/v1/tokenize", {"pan": new_pan()}, token=token), 403, "insufficient_scope")


def test_a_bank_fetches_a_record(vault):
    made = vault.tokenize(new_pan(), template="numeric")
    record = vault.call("GET", f"/v1/tokens/{made['token']}").json()
    for field in ("ciphertext_id", "fingerprint", "token", "created_at"):
        assert record[field], field


def test_an_envelope_verifies_with_the_key_set_and_opens(vault, key_set):
    pan = new_pan()
    sealed = seal(vault, pan)
    claims = jwt.decode(
        sealed["jwt"], signing_key(key_set, sealed["jwt"]), algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER
    )
    assert claims["jti"] == sealed["jti"]
    assert claims["exp"] - claims["iat"] == 30 * 60
    opened = open_envelope(vault, sealed["jwt"]).json()
    assert opened["meta_data"] == {"card_number": pan, "expiry_date": "12/31", "cvv": "123"}
    assert opened["claims"]["aud"] == AUDIENCE


def test_a_wrong_audience_an_end_and_a_wrong_key_are_told_apart(vault, key_set):
    sealed = seal(vault, new_pan(), expires_in=1)["jwt"]
    key = signing_key(key_set, sealed)
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(sealed, key, algorithms=["RS256"], audience="another")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(sealed, vault.issuer_public_key, algorithms=["RS256"], audience=AUDIENCE)
    time.sleep(1.1)
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(sealed, key, algorithms=["RS256"], audience=AUDIENCE)
    assert_problem(open_envelope(vault, sealed), 422, "envelope_expired")


def test_meta_data_cannot_be_moved_into_another_jwt(vault):
    mine, other = seal(vault, new_pan())["jwt"], seal(vault, new_pan())["jwt"]
    claims = [jwt.decode(text, options={"verify_signature": False}) for text in (mine, other)]
    moved = {**claims[0], "meta_data": claims[1]["meta_data"]}
    header, _, signature = mine.split(".")
    forged = f"{header}.{base64url(json.dumps(moved).encode())}.{signature}"
    assert_problem(open_envelope(vault, forged), 422, "envelope_invalid")
    headers = {"kid": jwt.get_unverified_header(mine)["kid"], "typ": "envelope+jwt"}
    by_another = jwt.encode(moved, vault.issuer_key, algorithm="RS256", headers=headers)
    assert_problem(open_envelope(vault, by_another), 422, "envelope_invalid")


def test_a_single_use_envelope_opens_once(vault):
    sealed = seal(vault, new_pan(), single_use=True)["jwt"]
    assert open_envelope(vault, sealed).status_code == 200
    assert_problem(open_envelope(vault, sealed), 422, "envelope_replayed")
