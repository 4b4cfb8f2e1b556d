"""The package's life on a machine: installed, set up as docs/install.md says, used, restarted, upgraded, removed, purged."""

import json
import re
import select
import subprocess
import tempfile
import time

from container import REPOSITORY
from inside.pans import pan
from stopped import StoppedThread

PIN = "472913"
PAN = "4111111111111111"
UNITS = ("vaultd.service", "vaultd.socket", "vaultd-admin.socket", "vaultd-backup.timer")
DROP_IN = "/etc/systemd/system/vaultd.service.d"
API = "/run/vaultd/vaultd.sock"
FAULT = "/run/vaultd-fault"
PATIENCE_SECONDS = 60
# Enough for each of the callers to be met in every state that a request can be in.
RESTARTS = 5
CARDS = 15_000
METRICS = "http://127.0.0.1:9517/metrics"
# More than systemd lets a socket be triggered by in two seconds, unless told otherwise.
KNOCKS = 300

CONFIG = """
[server]
socket = "/run/vaultd/vaultd.sock"
socket_group = "vault-clients"
admin_socket = "/run/vaultd/admin.sock"
[hsm]
module = "/usr/lib/vaultd/libchaos_hsm.so"
token_label = "vaultd"
pin_file = "$CREDENTIALS_DIRECTORY/hsm-pin"
[hsm.environment]
CHAOS_HSM_MODULE = "/usr/lib/softhsm/libsofthsm2.so"
CHAOS_HSM_FAULT = "/run/vaultd-fault"
[sandbox]
require = true
[store]
dir = "/var/lib/vaultd/store"
[audit]
dir = "/var/lib/vaultd/audit"
[tokens]
default_template = "default"
[tokens.templates.default]
format = "uuid"
[[auth.peers]]
name = "checkout"
user = "checkout"
tenant = "shop"
scopes = ["tokenize", "detokenize"]
max_lifetime_seconds = 900
[[auth.peers]]
name = "caller"
unit = "caller.service"
tenant = "shop"
scopes = ["tokenize"]
max_lifetime_seconds = 900
"""

story = {}


def as_the_service(container, *command, **more):
    """Runs a command of vaultd as docs/install.md says: with the service's user and PIN."""
    return container.run("bash", "-c", f'{as_vaultd("docs/install.md")}\nas_vaultd "$@"', "bash", *command, **more)


def as_vaultd(page):
    """The function of that name in a page of the manual, for a token of SoftHSM2, as docs/install.md says of drop-ins."""
    lines = (REPOSITORY / page).read_text().partition("as_vaultd() {")[2].partition("}\n")[0]
    lines = lines.replace("-p User=vaultd", "-p User=vaultd -p SupplementaryGroups=softhsm")
    return f"as_vaultd() {{{lines}}}"


def curl(container, path, body, token=None, user="checkout", status=0, unit=None):
    """One request by curl, in a unit of its own if `unit` is given; gives the answer's status and content."""
    in_unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={unit}", f"-pUser={user}"]
    command = in_unit if unit else []
    command += ["curl", "-sS", "--max-time", "30", "--unix-socket", API, "-w", "\n%{http_code}"]
    command += ["-H", "content-type: application/json", "--data", "@-"]
    command += ["-H", f"authorization: Bearer {token}"] if token else []
    user = None if unit else user
    output = container.run(*command, f"http://vault{path}", user=user, text=json.dumps(body), status=status)
    content, _, code = output.rpartition("\n")
    return (int(code), json.loads(content)) if status == 0 else (0, output)


def audit_entries(container, **fields):
    """The entries of the audit log that have these values."""
    lines = container.run("bash", "-c", "cat /var/lib/vaultd/audit/audit-*.jsonl").splitlines()
    return [entry for entry in map(json.loads, lines) if fields.items() <= entry.items()]


def main_pid(container):
    return int(container.show("vaultd.service", "MainPID"))


def wait_for(container, what, holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not in {PATIENCE_SECONDS} s\n{container.log()}")


def wait_for_another(container, pid, meanwhile=lambda: None):
    """Waits until another process than `pid` serves; calls `meanwhile` again and again."""

    def another():
        meanwhile()
        is_active = container.run("systemctl", "is-active", "vaultd.service", status=None) == "active"
        return is_active and main_pid(container) not in (0, pid) and main_pid(container)

    return wait_for(container, "another process serves", another)


def watchdog_timeouts(container):
    journal = container.run("journalctl", "-u", "vaultd.service", "-o", "cat", "--no-pager")
    return journal.count("Watchdog timeout")


def restarts_under_load(container, restart):
    """Calls `restart` while callers call; none of their requests may be lost. Gives what they say."""
    load = container.popen(
        "python3",
        "/inside/load.py",
        user="checkout",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        readable, _, _ = select.select([load.stdout], [], [], PATIENCE_SECONDS)
        assert readable and load.stdout.readline() == "running\n", container.log()
        time.sleep(1)
        restart()
        time.sleep(1)
        output, _ = load.communicate("", timeout=PATIENCE_SECONDS)
    finally:
        load.kill()
    said = json.loads(output)
    print(f"load: {said}")
    assert said["failures"] == {}, f"{said}\n{container.log()}"
    assert said["answered"] > 0
    return said


def test_installing_enables_and_starts_nothing(container):
    container.run("dpkg", "--install", "/packages/vaultd-0.0.1-1.deb")
    for unit in UNITS:
        assert container.run("systemctl", "is-enabled", unit, status=None) == "disabled", unit
        assert container.run("systemctl", "is-active", unit, status=None) == "inactive", unit
    assert container.run("stat", "-c", "%U:%G %a", "/var/lib/vaultd/store") == "vaultd:vaultd 700"
    assert container.run("stat", "-c", "%U:%G %a", "/etc/vaultd/vaultd.toml") == "root:root 644"
    assert re.match(r"vaultd \d", container.run("vaultd", "--version"))
    for page in ("vaultd", "vaultd-serve", "vaultctl"):
        container.run("test", "-s", f"/usr/share/man/man1/{page}.1.gz")
    container.run("bash", "-c", ". /usr/share/bash-completion/completions/vaultd && complete -p vaultd")


def test_setting_it_up(container):
    container.run("useradd", "--groups", "vault-clients", "checkout")
    container.run("useradd", "--groups", "vault-clients", "caller")
    container.run("useradd", "mallory")
    container.run("usermod", "--append", "--groups", "softhsm", "vaultd")
    token = ("softhsm2-util", "--init-token", "--free", "--label", "vaultd", "--pin", PIN, "--so-pin", PIN)
    container.run(*token, user="vaultd")
    container.run("mkdir", "-p", "-m", "700", "/etc/credstore.encrypted", DROP_IN)
    encrypted = "/etc/credstore.encrypted/vaultd.hsm-pin"
    container.run("systemd-creds", "encrypt", "--name=hsm-pin", "-", encrypted, text=PIN)
    container.run("cp", "/usr/share/doc/vaultd/drop-ins/softhsm2.conf", DROP_IN)
    # The outage that is rehearsed below.
    container.run("cp", "/packages/libchaos_hsm.so", "/usr/lib/vaultd/")
    container.write(FAULT, "")
    container.write("/etc/vaultd/vaultd.toml", CONFIG)
    container.run("systemctl", "daemon-reload")

    said = as_the_service(container, "vaultd", "init", "--config", "/etc/vaultd/vaultd.toml")
    assert "record-v1" in said, said
    as_the_service(container, "vaultd", "check", "--quick", "--config", "/etc/vaultd/vaultd.toml")
    container.run("systemctl", "enable", "--now", "vaultd.service")
    for unit in ("vaultd.service", "vaultd.socket", "vaultd-admin.socket"):
        assert container.run("systemctl", "is-enabled", unit) == "enabled", unit
        assert container.run("systemctl", "is-active", unit) == "active", unit


def test_a_service_of_the_group_is_served(container):
    status, login = curl(container, "/v1/login", {})
    assert status == 200, login
    story["jwt"] = login["access_token"]
    status, made = curl(container, "/v1/tokenize", {"pan": PAN}, story["jwt"])
    assert status == 201, made
    story["token"] = made["token"]
    assert curl(container, "/v1/detokenize", {"token": made["token"]}, story["jwt"]) == (200, {"pan": PAN})
    by_vaultctl = container.run("vaultctl", "--json", "tokenize", user="checkout", text=PAN)
    assert json.loads(by_vaultctl)["token"] == made["token"]


def test_the_manual_swaps_no_card_either(container):
    own = 'systemctl show --value --property="$1" "$(basename "$(cut -d: -f3 /proc/self/cgroup)")"'
    for page in ("docs/install.md", "docs/backup.md"):
        for name in ("MemorySwapMax", "LimitMEMLOCK"):
            ask = f"{as_vaultd(page)}\nas_vaultd sh -c '{own}' sh {name}"
            said = container.run("bash", "-c", ask).splitlines()
            assert container.show("vaultd.service", name) in said, f"{page}: {name}: {said}"


def test_others_are_not(container):
    # curl's status 7: no connection.
    _, said = curl(container, "/v1/login", {}, user="mallory", status=7)
    assert said.endswith("000"), said
    admin = ("curl", "-sS", "--unix-socket", "/run/vaultd/admin.sock", "http://vault/healthz")
    container.run(*admin, user="checkout", status=7)
    container.run(*admin, user="vaultd")


def test_a_service_is_known_by_its_unit(container):
    status, login = curl(container, "/v1/login", {}, user="caller", unit="caller.service")
    assert status == 200, login
    entries = audit_entries(container, op="login", subject="caller")
    assert [(entry["outcome"], entry["unit"]) for entry in entries] == [("granted", "caller.service")], entries
    assert curl(container, "/v1/login", {}, user="caller", unit="other.service")[0] == 403
    assert curl(container, "/v1/login", {}, user="caller")[0] == 403

    # Where a drop-in hides the callers, the journal says why nobody is let in.
    container.write(f"{DROP_IN}/hidden.conf", "[Service]\nProtectProc=invisible\n")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "restart", "vaultd.service")
    assert curl(container, "/v1/login", {}, user="caller", unit="caller.service")[0] == 403
    container.run("journalctl", "--sync")
    warnings = container.run("journalctl", "-u", "vaultd.service", "-p", "warning", "-o", "cat", "--no-pager")
    assert warnings.count("the unit of a caller is not known") == 1, warnings
    container.run("rm", f"{DROP_IN}/hidden.conf")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "restart", "vaultd.service")


def test_the_process_has_given_up_what_it_can(container):
    pid = main_pid(container)
    status = dict(
        line.split(":\t", 1) for line in container.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line
    )
    none = "0" * 16
    capabilities = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert capabilities == dict.fromkeys(capabilities, none)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split() + status["Gid"].split()
    limits = container.run("cat", f"/proc/{pid}/limits")
    assert re.search(r"Max core file size +0 +0 ", limits), limits
    # A container may not be allowed to give as much as the unit asks for.
    assert container.show("vaultd.service", "LimitMEMLOCK") == "infinity"
    environment = container.run("cat", f"/proc/{pid}/environ")
    assert PIN not in environment


def test_a_restart_under_load_loses_no_request(container):
    pids = {main_pid(container)}

    def restart():
        for _ in range(RESTARTS):
            container.run("systemctl", "restart", "vaultd.service")
            pids.add(main_pid(container))
            time.sleep(0.3)

    # The library retries what is safe: a program that uses it sees nothing of all this.
    cards = "".join(f"{pan(number)}\n" for number in range(CARDS))
    container.write("/run/cards", cards, mode="0644")
    bulk = ("vaultctl", "tokenize", "--file", "/run/cards", "--batch", "4")
    # Not a pipe, which would fill and stop it.
    with tempfile.TemporaryFile("w+") as tokens:
        by_library = container.popen(*bulk, user="checkout", stdout=tokens, stderr=subprocess.PIPE)
        try:
            restarts_under_load(container, restart)
            _, said = by_library.communicate(timeout=PATIENCE_SECONDS)
        finally:
            by_library.kill()
        assert by_library.returncode == 0, said
        tokens.seek(0)
        # With a line of names.
        assert len(tokens.readlines()) == CARDS + 1, said
    assert len(pids) == RESTARTS + 1


def test_a_reload_keeps_the_process(container):
    pid = main_pid(container)
    container.run("systemctl", "reload", "vaultd.service")
    assert main_pid(container) == pid
    wait_for(
        container,
        "the reload is over",
        lambda: container.run("systemctl", "is-active", "vaultd.service", status=None) == "active",
    )


def test_the_watchdog_lets_an_outage_of_the_hsm_pass_and_catches_what_hangs(container):
    container.write(f"{DROP_IN}/watchdog.conf", "[Service]\nWatchdogSec=6\nRestartSec=100ms\n")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "restart", "vaultd.service")
    pid = main_pid(container)

    container.write(FAULT, "* error CKR_DEVICE_ERROR")
    ready = ("curl", "-sS", "--unix-socket", API, "http://vault/readyz")
    try:
        wait_for(
            container,
            "the outage is noticed",
            lambda: not json.loads(container.run(*ready, user="checkout"))["ready"],
        )
        time.sleep(9)
        assert main_pid(container) == pid, container.log()
    finally:
        container.write(FAULT, "")
    wait_for(
        container,
        "the HSM is back",
        lambda: json.loads(container.run(*ready, user="checkout"))["ready"],
    )
    assert main_pid(container) == pid

    container.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", "vaultd.service")
    pid = wait_for_another(container, pid)
    assert watchdog_timeouts(container) == 1, container.log()
    # All else goes on, the timer that feeds the watchdog included.
    for times, thread in enumerate(("store", "audit"), start=2):
        stopped = StoppedThread(pid, thread)
        pid = wait_for_another(container, pid, stopped.reap)
        assert watchdog_timeouts(container) == times, container.log()
    assert curl(container, "/v1/detokenize", {"token": story["token"]}, story["jwt"]) == (200, {"pan": PAN})
    container.run("rm", f"{DROP_IN}/watchdog.conf")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "restart", "vaultd.service")


def test_an_upgrade_under_load_loses_no_request(container):
    pid = main_pid(container)
    upgrade = ("dpkg", "--install", "/packages/vaultd-0.0.2-1.deb")
    restarts_under_load(container, lambda: container.run("env", "DEBIAN_FRONTEND=noninteractive", *upgrade))
    assert container.run("dpkg-query", "-W", "-f", "${Version}", "vaultd") == "0.0.2-1"
    assert main_pid(container) not in (0, pid)
    # An administrator's configuration stays.
    assert 'user = "checkout"' in container.run("cat", "/etc/vaultd/vaultd.toml")
    assert curl(container, "/v1/detokenize", {"token": story["token"]}, story["jwt"]) == (200, {"pan": PAN})


def test_the_timer_makes_backups_and_keeps_the_newest(container):
    container.write("/etc/systemd/system/vaultd-backup.service.d/few.conf", "[Service]\nEnvironment=KEEP=2\n")
    soon = "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1us\n"
    container.write("/etc/systemd/system/vaultd-backup.timer.d/soon.conf", soon)
    container.run("systemctl", "daemon-reload")

    def backups():
        return container.run("ls", "/var/backups/vaultd").split()

    killed, running = (f"/var/backups/vaultd/.vaultd-{name}.backup.1.part" for name in ("killed", "running"))
    container.run("touch", "--date=25 hours ago", killed, user="vaultd")
    container.run("touch", running, user="vaultd")
    first = []
    for _ in range(2):
        container.run("systemctl", "start", "vaultd-backup.service")
        first = first or backups()
        # Names have seconds.
        time.sleep(1.1)
    made = backups()
    assert len(made) == 2 and first[0] in made, made
    container.run("test", "!", "-e", killed)
    container.run("test", "-e", running)
    container.run("systemctl", "start", "vaultd-backup.timer")
    wait_for(container, "the timer has made a third and removed the first", lambda: first[0] not in backups())
    kept = backups()
    assert len(kept) == 2 and made[1] in kept, kept
    newest = f"/var/backups/vaultd/{kept[-1]}"
    assert container.run("stat", "-c", "%U:%G %a", newest) == "vaultd:vaultd 600"
    restore = ("vaultd", "restore", "--config", "/etc/vaultd/vaultd.toml", "--from", newest, "--check")
    as_the_service(container, *restore)


def test_a_backup_leaves_a_stopped_vault_alone(container):
    units = ("vaultd.service", "vaultd.socket", "vaultd-admin.socket")
    container.run("systemctl", "stop", *units)
    container.run("systemctl", "start", "vaultd-backup.service", status=1)
    for unit in units:
        assert container.run("systemctl", "is-active", unit, status=None) == "inactive", unit
    container.run("systemctl", "start", *units)


def test_metrics_are_there_whoever_knocks(container):
    # As config/observability/README.md says.
    shipped, units = "/usr/share/doc/vaultd/observability", "/etc/systemd/system"
    container.run("install", "-D", "-m", "755", f"{shipped}/vaultd-metrics", "/usr/lib/vaultd/vaultd-metrics")
    names = ("vaultd-metrics.socket", "vaultd-metrics@.service")
    container.run("install", "-m", "644", *(f"{shipped}/{name}" for name in names), units)
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "enable", "--now", "vaultd-metrics.socket")

    def scrape():
        scraped = container.run("curl", "-sS", "--max-time", "5", METRICS, user="mallory", status=None)
        return "vaultd_build_info" in scraped

    def instances():
        listed = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "vaultd-metrics@*")
        return container.run(*listed).splitlines()

    wait_for(container, "metrics", scrape)
    knock = f"import socket\nfor _ in range({KNOCKS}): socket.create_connection(('127.0.0.1', 9517)).close()"
    container.run("python3", "-c", knock, user="mallory")
    assert container.run("systemctl", "is-active", "vaultd-metrics.socket", status=None) == "active", container.log()
    wait_for(container, "metrics after many connections", scrape)

    vault = ("vaultd.service", "vaultd.socket", "vaultd-admin.socket")
    container.run("systemctl", "stop", *vault)
    for _ in range(3):
        assert not scrape()
    wait_for(container, "nothing is left of scrapes that failed", lambda: not instances())
    container.run("systemctl", "start", *vault)
    wait_for(container, "metrics of a vault that is back", scrape)
    container.run("systemctl", "disable", "--now", "vaultd-metrics.socket")
    container.run("rm", "/usr/lib/vaultd/vaultd-metrics", *(f"{units}/{name}" for name in names))


def test_the_drill_of_the_manual_works_as_it_stands_there(container):
    blocks = (REPOSITORY / "docs/backup.md").read_text().split("```sh\n")
    drill = next(block for block in blocks if block.startswith("systemctl start")).split("```")[0]
    # As docs/install.md says of drop-ins.
    drill = drill.replace("-p User=vaultd", "-p User=vaultd -p SupplementaryGroups=softhsm")
    # Names have seconds.
    time.sleep(1.1)
    said = container.run("bash", "-e", "-c", drill)
    assert "\ncan be restored: " in said and "\nrestored: " in said and "each opens" in said, said
    assert curl(container, "/v1/detokenize", {"token": story["token"]}, story["jwt"]) == (200, {"pan": PAN})


def test_removal_and_purge_keep_the_cards_until_told_otherwise(container):
    configuration = container.run("cat", "/etc/vaultd/vaultd.toml")
    container.write("/etc/vaultd/issuer.pub.pem", "a key")
    kept = ("/var/lib/vaultd", "/var/backups/vaultd", "/etc/vaultd", "/etc/credstore.encrypted/vaultd.hsm-pin")
    container.run("dpkg", "--remove", "vaultd")
    assert container.run("systemctl", "is-active", "vaultd.socket", status=None) == "inactive"
    container.run("test", "-s", "/var/lib/vaultd/store/vault.redb")
    assert container.run("cat", "/etc/vaultd/vaultd.toml") == configuration

    # Where nobody is asked, all is kept but the configuration, which dpkg deletes itself.
    said = container.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--purge", "vaultd")
    assert re.findall("^vaultd: (.*)", said, re.MULTILINE) == [f"kept: {path}" for path in kept], said
    container.run("test", "-s", "/var/lib/vaultd/store/vault.redb")
    container.run("test", "-s", "/etc/credstore.encrypted/vaultd.hsm-pin")
    assert container.run("ls", "/etc/vaultd") == "issuer.pub.pem"

    # What was kept can be used again, with a copy of the configuration.
    container.run("dpkg", "--install", "/packages/vaultd-0.0.2-1.deb")
    container.run("cp", "/packages/libchaos_hsm.so", "/usr/lib/vaultd/")
    container.write("/etc/vaultd/vaultd.toml", configuration)
    container.run("systemctl", "enable", "--now", "vaultd.service")
    assert curl(container, "/v1/detokenize", {"token": story["token"]}, story["jwt"]) == (200, {"pan": PAN})

    # Somebody is asked, although the package came by dpkg alone. It is said what is gone, and of nothing else.
    container.run("rm", "-r", "/var/backups/vaultd")
    said = container.run("env", "DEBIAN_FRONTEND=teletype", "dpkg", "--purge", "vaultd", text="yes\n")
    assert "Delete the cards, the audit log, the backups and the PIN?" in said, said
    deleted = [f"deleted: {path}" for path in kept if path != "/var/backups/vaultd"]
    assert re.findall("^vaultd: (.*)", said, re.MULTILINE) == deleted, said
    for path in kept:
        container.run("test", "!", "-e", path)
    assert container.run("softhsm2-util", "--show-slots").count("vaultd") == 1, "keys are not the package's"
