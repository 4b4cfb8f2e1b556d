"""What a caller in another language does all day."""

import base64
import hashlib
import json
import time
from datetime import datetime, timezone

import pytest

from support import assert_problem, masked, new_pan

TOKENIZE_ANSWER = {
    "token", "created", "masked_pan", "bin", "last4", "brand", "template", "created_at", "expires_at",
}  # fmt: skip


def when(text):
    assert text.endswith("Z"), f"{text} is not UTC"
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_health_needs_no_token(vault):
    assert vault.http.get("/healthz").json() == {"status": "ok"}
    answer = vault.http.get("/readyz")
    assert answer.status_code == 200
    readiness = answer.json()
    assert readiness["ready"] is True
    assert {name: check["ok"] for name, check in readiness["checks"].items()} == {
        "hsm": True,
        "store": True,
        "audit": True,
    }


def test_a_card_number_becomes_a_token(vault):
    pan = new_pan()
    answer = vault.call("POST", "/v1/tokenize", {"pan": pan})
    assert answer.status_code == 201
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    assert answer.headers["x-request-id"]
    assert "no-store" in answer.headers["cache-control"]
    record = answer.json()
    assert set(record) == TOKENIZE_ANSWER
    assert record["created"] is True
    assert record["masked_pan"] == masked(pan)
    assert (record["bin"], record["last4"], record["brand"]) == (pan[:6], pan[-4:], "visa")
    assert abs((datetime.now(timezone.utc) - when(record["created_at"])).total_seconds()) < 60
    assert pan not in answer.text


def test_the_same_card_number_keeps_its_token(vault):
    pan = new_pan()
    first = vault.tokenize(pan)
    spaced = " ".join(pan[start : start + 4] for start in range(0, len(pan), 4))
    for again in (pan, spaced, spaced.replace(" ", "-")):
        answer = vault.call("POST", "/v1/tokenize", {"pan": again})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {**first, "created": False}


@pytest.mark.parametrize("length", [12, 13, 15, 19])
def test_card_numbers_of_every_length_come_back(vault, length):
    pan = new_pan(length)
    token = vault.tokenize(pan)["token"]
    assert vault.call("POST", "/v1/detokenize", {"token": token}).json() == {"pan": pan}


def test_a_token_becomes_its_card_number(vault):
    pan = new_pan()
    token = vault.tokenize(pan, expiry_date="12/30", holder="Ada Lovelace")["token"]
    answer = vault.call("POST", "/v1/detokenize", {"token": token})
    assert answer.status_code == 200
    assert answer.json() == {"pan": pan, "expiry_date": "12/30"}
    assert "no-store" in answer.headers["cache-control"]
    full = vault.call("POST", "/v1/detokenize", {"token": token, "reveal": "full"})
    assert full.json() == answer.json()


def test_a_masked_reveal_needs_only_its_own_scope(vault):
    pan = new_pan()
    token = vault.tokenize(pan)["token"]
    clerk = vault.mint(scope="detokenize:masked")
    answer = vault.call("POST", "/v1/detokenize", {"token": token, "reveal": "masked"}, clerk)
    assert answer.status_code == 200
    assert answer.json() == {"masked_pan": masked(pan)}
    refused = vault.call("POST", "/v1/detokenize", {"token": token}, clerk)
    assert_problem(refused, 403, "insufficient_scope", pan)


def test_a_batch_becomes_tokens_and_one_bad_item_fails_alone(vault):
    pans = [new_pan() for _ in range(3)]
    bad = pans[1][:-1] + str((int(pans[1][-1]) + 1) % 10)
    items = [{"pan": pans[0]}, {"pan": bad}, {"pan": pans[2], "metadata": {"n": 3}}, {"pan": pans[0]}]
    answer = vault.call("POST", "/v1/tokenize/batch", {"items": items})
    assert answer.status_code == 200, answer.text
    first, failed, third, again = answer.json()["results"]
    assert set(first) == set(third) == set(again) == TOKENIZE_ANSWER
    assert (first["last4"], third["last4"]) == (pans[0][-4:], pans[2][-4:])
    assert first["token"] == again["token"]
    assert failed["error"]["code"] == "invalid_pan"
    assert failed["error"]["status"] == 400
    assert bad not in answer.text


def test_a_batch_becomes_card_numbers_and_one_bad_token_fails_alone(vault):
    pans = [new_pan() for _ in range(2)]
    tokens = [vault.tokenize(pan)["token"] for pan in pans]
    unknown = vault.deleted_token()
    body = {"tokens": [tokens[0], unknown, tokens[1]]}
    answer = vault.call("POST", "/v1/detokenize/batch", body)
    assert answer.status_code == 200, answer.text
    assert "no-store" in answer.headers["cache-control"]
    first, failed, second = answer.json()["results"]
    assert (first, second) == ({"pan": pans[0]}, {"pan": pans[1]})
    assert (failed["error"]["code"], failed["error"]["status"]) == ("unknown_token", 404)


def test_a_batch_of_a_thousand_goes_there_and_back(vault):
    pans = [new_pan() for _ in range(1_000)]
    answer = vault.call("POST", "/v1/tokenize/batch", {"items": [{"pan": pan} for pan in pans]})
    assert answer.status_code == 200, answer.text
    tokens = [result["token"] for result in answer.json()["results"]]
    assert len(set(tokens)) == 1_000
    answer = vault.call("POST", "/v1/detokenize/batch", {"tokens": tokens})
    assert [result["pan"] for result in answer.json()["results"]] == pans


def test_a_record_is_read_changed_and_deleted(vault):
    pan = new_pan()
    made = vault.tokenize(pan, holder="Ada Lovelace", metadata={"order": "A-1", "paid": True})
    path = f"/v1/tokens/{made['token']}"

    answer = vault.call("GET", path)
    assert answer.status_code == 200
    record = answer.json()
    assert pan not in answer.text
    for field in TOKENIZE_ANSWER - {"created"}:
        assert record[field] == made[field], field
    assert record["key_version"] >= 1
    assert record["holder"] == "Ada Lovelace"
    assert record["metadata"] == {"order": "A-1", "paid": True}

    before = time.time()
    answer = vault.call("PATCH", path, {"metadata": {"order": "A-2", "total": 12.5}, "expires_in": 3600})
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert changed["metadata"] == {"order": "A-2", "total": 12.5}
    assert -2 <= when(changed["expires_at"]).timestamp() - before - 3600 <= 10
    assert vault.call("GET", path).json() == changed

    answer = vault.call("DELETE", path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert_problem(vault.call("GET", path), 404, "unknown_token")
    again = vault.tokenize(pan)
    assert again["created"] is True
    assert again["token"] != made["token"]


def test_a_token_ends_when_its_time_is_over(vault):
    pan = new_pan()
    token = vault.tokenize(pan, expires_in=1)["token"]
    time.sleep(3)
    answer = vault.call("POST", "/v1/detokenize", {"token": token})
    # Until it is swept a token that ended is known and gone; afterwards it is unknown.
    if answer.status_code == 410:
        assert_problem(answer, 410, "token_expired", pan)
    else:
        assert_problem(answer, 404, "unknown_token", pan)


def test_a_jwt_that_we_sign_ourselves_is_accepted(vault):
    token = vault.mint(scope="tokenize")
    answer = vault.call("POST", "/v1/tokenize", {"pan": new_pan()}, token)
    assert answer.status_code == 201, answer.text


def test_tenants_do_not_share_tokens(vault):
    pan = new_pan()
    ours = vault.tokenize(pan)
    answer = vault.call("POST", "/v1/tokenize", {"pan": pan}, vault.mint(tenant="other"))
    assert answer.status_code == 201, answer.text
    assert answer.json()["token"] != ours["token"]


def test_the_public_keys_have_their_rfc_7638_thumbprint(vault):
    answer = vault.http.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    keys = answer.json()["keys"]
    assert keys
    for key in keys:
        assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")
        assert not {"d", "p", "q", "dp", "dq", "qi"} & set(key), "a private key"
        modulus = base64.urlsafe_b64decode(key["n"] + "==")
        assert len(modulus) * 8 >= 2048 and modulus[0] != 0
        required = {"e": key["e"], "kty": key["kty"], "n": key["n"]}
        canonical = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
        thumbprint = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=")
        assert key["kid"] == thumbprint.decode()
