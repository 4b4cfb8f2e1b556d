"""The OpenAPI document: valid, and complete against the contract."""

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
