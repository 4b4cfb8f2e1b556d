"""Dashboard, alerts and documentation name the series that a vault has, and no others."""

import json
import os
import re
import socket
import subprocess

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support import REPOSITORY, new_pan

OBSERVABILITY = REPOSITORY / "config/observability"
#: Series and labels that Prometheus itself makes.
FROM_PROMETHEUS = {"up", "ALERTS"}
LABELS_FROM_PROMETHEUS = {"job", "instance"}
#: What Grafana puts in before it asks.
GRAFANA = {"$__rate_interval": "5m", "$instance": ".*"}


def expressions():
    """Every PromQL expression that is shipped, with where it stands."""
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard, {panel['title']!r}", target["expr"]
    for group in yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alerts, {rule['alert']}", rule["expr"]


def parsed(expression):
    for variable, value in GRAFANA.items():
        expression = expression.replace(variable, value)
    return promql_parser.parse(expression)


def parts(expression):
    """The expression and every expression in it."""
    found = [expression]
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None and not isinstance(inner, (str, float)):
            found += parts(inner)
    for argument in getattr(expression, "args", None) or []:
        found += parts(argument)
    return found


@pytest.fixture(scope="module")
def admin(vault):
    transport = httpx.HTTPTransport(uds=str(vault.directory / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def families(vault, admin):
    """What a vault shows after some traffic, as Prometheus' own client library reads it."""
    token = vault.tokenize(new_pan(), holder="Ada Lovelace")["token"]
    assert vault.call("POST", "/v1/detokenize", {"token": token}).status_code == 200
    assert vault.call("GET", f"/v1/tokens/{token}", token="no JWT").status_code == 401
    answer = admin.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def selectors(text):
    """The series that a PromQL expression asks for."""
    return [part for part in parts(parsed(text)) if isinstance(part, promql_parser.VectorSelector)]


def labels_by_series(families):
    """Each series that can be asked for, and the labels of its samples. Of one without any, nothing is known."""
    known = {}
    for family in families.values():
        names = {sample.name for sample in family.samples}
        if not names:
            names = {family.name + "_total" if family.type == "counter" else family.name}
        for name in names:
            samples = [sample for sample in family.samples if sample.name == name]
            known[name] = {label for sample in samples for label in sample.labels}
    return known


def test_every_series_that_dashboard_and_alerts_name_is_there(families):
    known = labels_by_series(families)
    asked = 0
    for where, text in expressions():
        for series in selectors(text):
            asked += 1
            assert series.name in known or series.name in FROM_PROMETHEUS, f"{where}: there is no {series.name}"
            labels = known.get(series.name)
            for label in [matcher.name for matcher in series.matchers.matchers] if labels else []:
                assert label in labels | LABELS_FROM_PROMETHEUS, f"{where}: {series.name} has no {label}"
    assert asked > 80


def test_every_series_of_the_vault_is_shown_somewhere(families):
    shown = {series.name for _, text in expressions() for series in selectors(text)}
    for family in families.values():
        if family.name.startswith("process_"):
            continue
        names = {sample.name for sample in family.samples} | {family.name, family.name + "_total"}
        assert names & shown, f"{family.name} is neither on the dashboard nor in an alert"


def test_labels_that_are_grouped_by_are_there(families):
    known = labels_by_series(families)
    grouped = 0
    for where, text in expressions():
        asked = [series.name for series in selectors(text)]
        if not all(known.get(name) for name in asked):
            continue
        labels = LABELS_FROM_PROMETHEUS.union(*(known[name] for name in asked))
        for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text):
            for label in (label.strip() for label in group.split(",")):
                assert label in labels, f"{where}: grouped by {label}"
                grouped += 1
    assert grouped > 0


def test_codes_in_alerts_are_codes_of_the_vault(vault):
    document = vault.http.get("/v1/openapi.json").json()
    codes = set(document["components"]["schemas"]["Code"]["enum"])
    named = 0
    for where, text in expressions():
        for names in re.findall(r'code=~"([^"]*)"', text):
            assert set(names.split("|")) <= codes, where
            named += 1
    assert named > 0


def test_every_series_is_explained(families):
    text = (OBSERVABILITY / "README.md").read_text()
    explained = dict(re.findall(r"^\| `(\w+)(?:\{[^}]*\})?` \| (\w+) \|", text, re.MULTILINE))
    kinds = {
        family.name + ("_total" if family.type == "counter" else ""): family.type for family in families.values()
    }
    assert explained == kinds


@pytest.fixture
def scrape(vault):
    """Sends bytes to `vaultd-metrics` as systemd would hand it a connection; what comes back."""

    def send(request):
        ours, its = socket.socketpair()
        admin = str(vault.directory / "admin.sock")
        environment = {"PATH": os.environ["PATH"], "VAULTD_ADMIN_SOCKET": admin}
        with ours:
            command = [OBSERVABILITY / "vaultd-metrics"]
            script = subprocess.Popen(command, stdin=its, stdout=its, env=environment)
            its.close()
            ours.settimeout(30)
            ours.sendall(request)
            answer = b"".join(iter(lambda: ours.recv(65536), b""))
        assert script.wait(30) == 0
        return answer.decode()

    return send


def test_a_prometheus_that_knows_no_unix_sockets_gets_the_metrics(scrape, families):
    answer = scrape(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9517\r\nAccept-Encoding: gzip\r\n\r\n")
    head, body = answer.split("\r\n\r\n", 1)
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "connection: close" in head.lower()
    assert int(re.search(r"content-length: (\d+)", head.lower())[1]) == len(body.encode())
    assert set(families) <= {family.name for family in text_string_to_metric_families(body)}


def test_nothing_but_the_metrics_is_to_be_had_that_way(scrape, vault, admin):
    bearer = f"Bearer {vault.jwt}"

    def keys():
        return admin.get("/v1/keys", headers={"authorization": bearer}).json()

    before = keys()
    answer = scrape(
        f"POST /v1/keys/record/rotate HTTP/1.1\r\nHost: v\r\nAuthorization: {bearer}\r\n\r\n".encode()
    )
    assert "\nvaultd_build_info{" in answer
    assert len(keys()["keys"]) == len(before["keys"])


def test_two_scrapes_agree_on_what_has_been(admin):
    """A counter never goes back, and a histogram's last bucket is its count."""

    def read():
        families = text_string_to_metric_families(admin.get("/metrics").text)
        return [(family, sample) for family in families for sample in family.samples]

    def key(sample, **more):
        return (sample.name, *sorted({**sample.labels, **more}.items()))

    before = {key(sample): sample.value for family, sample in read() if family.type == "counter"}
    after = read()
    values = {key(sample): sample.value for _, sample in after}
    for family, sample in after:
        if family.type == "counter":
            assert sample.value >= before.get(key(sample), 0), sample
        if family.type == "histogram" and sample.name.endswith("_count"):
            bucket = sample._replace(name=f"{family.name}_bucket")
            assert values[key(bucket, le="+Inf")] == sample.value, sample
