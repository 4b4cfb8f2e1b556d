"""The OpenAPI document: valid, and complete against the contract."""

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

OPERATIONS = [
    ("/v1/tokenize", "post", {"200", "201"}),
    ("/v1/tokenize/batch", "post", {"200"}),
    ("/v1/detokenize", "post", {"200"}),
    ("/v1/detokenize/batch", "post", {"200"}),
    ("/v1/tokens/{token}", "get", {"200"}),
    ("/v1/tokens/{token}", "patch", {"200"}),
    ("/v1/tokens/{token}", "delete", {"204"}),
    ("/.well-known/jwks.json", "get", {"200"}),
    ("/v1/openapi.json", "get", {"200"}),
    ("/healthz", "get", {"200"}),
    ("/readyz", "get", {"200", "503"}),
]

ADMIN_OPERATIONS = [
    ("/metrics", "get"),
    ("/v1/status", "get"),
    ("/v1/reload", "post"),
    ("/v1/keys", "get"),
    ("/v1/keys/{purpose}/rotate", "post"),
    ("/v1/keys/{purpose}/{version}", "delete"),
    ("/v1/rewrap", "get"),
    ("/v1/rewrap", "post"),
    ("/v1/locks", "get"),
    ("/v1/locks/unlock", "post"),
    ("/v1/honey", "get"),
    ("/v1/honey", "post"),
    ("/v1/honey/{tenant}/{token}", "delete"),
    ("/v1/audit", "get"),
    ("/v1/backup", "post"),
]


@pytest.fixture(scope="module")
def document(vault):
    answer = vault.http.get("/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    return answer.json()


def test_it_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1.")
    errors = OpenAPIV31SpecValidator(document).iter_errors()
    assert not [f"{list(error.path)}: {error.message}" for error in errors]


@pytest.mark.parametrize("path, method, statuses", OPERATIONS)
def test_it_has_every_endpoint(document, path, method, statuses):
    operation = document["paths"][path][method]
    assert statuses <= set(operation["responses"])
    assert operation.get("summary") or operation.get("description")


@pytest.mark.parametrize("path, method", ADMIN_OPERATIONS)
def test_it_says_what_is_on_the_admin_socket(document, path, method):
    item = document["paths"][path]
    assert item[method]["tags"] == ["admin"]
    assert "admin socket" in item[method]["description"]
    assert "admin socket" in item["servers"][0]["description"]


def test_what_is_on_the_api_socket_has_another_tag(document):
    for path, method, _ in OPERATIONS:
        assert "admin" not in document["paths"][path][method]["tags"], (path, method)
        assert "servers" not in document["paths"][path], path


def test_its_errors_are_problems(document):
    for path, method, _ in OPERATIONS:
        if not path.startswith("/v1/t") and not path.startswith("/v1/d"):
            continue
        for status, response in document["paths"][path][method]["responses"].items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (path, method, status)


def test_it_says_where_a_bearer_token_is_needed(document):
    schemes = document["components"]["securitySchemes"]
    bearers = {name for name, scheme in schemes.items() if scheme.get("scheme") == "bearer"}
    assert bearers
    everywhere = document.get("security", [])
    for path, method, _ in OPERATIONS:
        needed = document["paths"][path][method].get("security", everywhere)
        open_to_all = path in ("/.well-known/jwks.json", "/v1/openapi.json", "/healthz", "/readyz")
        assert any(bearers & set(choice) for choice in needed) != open_to_all, (path, method)


def test_it_says_what_a_value_may_be(document):
    schemas = document["components"]["schemas"]
    fields = {
        ("TokenizeRequest", "pan"): {"minLength": 12, "maxLength": 37, "example": "4111111111111111"},
        ("TokenizeRequest", "holder"): {"minLength": 1, "maxLength": 200},
        ("TokenizeRequest", "expiry_date"): {"minLength": 4, "maxLength": 7, "example": "12/31"},
        ("TokenizeRequest", "expires_in"): {"minimum": 1, "maximum": 3_153_600_000},
        ("TokenPatch", "expires_in"): {"minimum": 1, "maximum": 3_153_600_000},
        ("SealEnvelopeRequest", "expires_in"): {"minimum": 1, "maximum": 86_400},
        ("CardData", "card_number"): {"minLength": 12, "maxLength": 37, "example": "4111111111111111"},
        ("CardData", "expiry_date"): {"minLength": 4, "maxLength": 7, "example": "12/31"},
        ("CardData", "cvv"): {"minLength": 3, "maxLength": 4},
        ("SearchRequest", "pan"): {"minLength": 12, "maxLength": 37},
        ("CompareRequest", "pan"): {"minLength": 12, "maxLength": 37},
    }
    for (schema, name), limits in fields.items():
        field = schemas[schema]["properties"][name]
        assert limits.items() <= field.items(), (schema, name, field)
    metadata = schemas["Metadata"]
    assert (metadata["maxProperties"], metadata["propertyNames"]["maxLength"]) == (32, 64)
    assert [value["maxLength"] for value in schemas["MetadataValue"]["oneOf"] if value["type"] == "string"] == [512]


@pytest.mark.parametrize(
    "schema, name, good, bad",
    [
        ("TokenizeRequest", "pan", "4111 1111-11111111", "4111  111111111111"),
        ("TokenizeRequest", "pan", "411111111111", "4111111111111111x"),
        ("CardData", "expiry_date", "12/2031", "13/31"),
        ("CardData", "expiry_date", "2031-01", "2031-00"),
        ("CardData", "cvv", "1234", "12x"),
    ],
)
def test_its_patterns_are_those_of_the_vault(document, schema, name, good, bad):
    pattern = document["components"]["schemas"][schema]["properties"][name]["pattern"]
    assert re.search(pattern, good) and not re.search(pattern, bad)


def test_it_describes_the_headers_of_answers(document):
    for path, item in document["paths"].items():
        for method in item.keys() - {"servers"}:
            for status, response in item[method]["responses"].items():
                assert "x-request-id" in response["headers"], (path, method, status)
    responses = document["paths"]["/v1/detokenize"]["post"]["responses"]
    assert "WWW-Authenticate" in responses["401"]["headers"]
    assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(responses["429"]["headers"])
    assert "Retry-After" in responses["503"]["headers"]
