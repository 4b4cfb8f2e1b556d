"""The checkout as a visitor sees it: Chromium, headless and with JavaScript switched off."""

import os
import queue
import random
import signal
import subprocess
import threading
import time

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from support import REPOSITORY, SEED, masked, new_pan

READY_SECONDS = 20
PAGE_SECONDS = 20
SCREENSHOTS = REPOSITORY / "target/screenshots"

_random = random.Random(f"{SEED} checkout")


class Checkout:
    """The site in front of `vault`, on a port of its own."""

    def __init__(self, vault):
        binary = os.environ.get("CHECKOUT_BIN", REPOSITORY / "target/debug/checkout")
        environment = {
            **os.environ,
            "VAULT_SOCKET": str(vault.directory / "vaultd.sock"),
            "VAULT_TOKEN_FILE": str(vault.directory / "token.jwt"),
        }
        environment.pop("VAULT_TOKEN", None)
        self._process = subprocess.Popen(
            [str(binary), "--listen", "0"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.output, self.pans = [], []
        ready = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        try:
            self.url = ready.get(timeout=READY_SECONDS)
        except queue.Empty:
            self._process.kill()
            raise AssertionError(f"checkout: not ready in {READY_SECONDS} s\n{''.join(self.output)}")
        assert self.url, f"checkout ended before it was ready\n{''.join(self.output)}"

    def new_pan(self):
        """A card number that must not turn up in the site's log."""
        self.pans.append(new_pan())
        return self.pans[-1]

    def memory_has(self, text):
        """Whether `text` stands anywhere in the memory of the site's process."""
        for line in open(f"/proc/{self._process.pid}/maps"):
            addresses, permissions, *_ = line.split()
            first, end = (int(address, 16) for address in addresses.split("-"))
            if "r" not in permissions or "[v" in line:
                continue
            try:
                with open(f"/proc/{self._process.pid}/mem", "rb", buffering=0) as memory:
                    memory.seek(first)
                    if text.encode() in memory.read(end - first):
                        return True
            except OSError:
                pass  # the mapping went away, or cannot be read by anybody
        return False

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(20)
        self._reader.join()
        log = "".join(self.output)
        assert status == 0, f"checkout ended with {status}\n{log}"
        assert not any(pan in log for pan in self.pans), "card numbers in the checkout's log"

    def _read(self, ready):
        for line in self._process.stdout:
            self.output.append(line)
            if line.startswith("ready: "):
                ready.put(line.removeprefix("ready: ").strip())
        ready.put(None)


class Visitor:
    """A browser and what its user does."""

    def __init__(self, checkout):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=900,900"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        scripts_off = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", scripts_off)
        service = webdriver.ChromeService("/usr/bin/chromedriver")
        self.browser = webdriver.Chrome(options=options, service=service)
        self.browser.set_page_load_timeout(PAGE_SECONDS)
        self.browser.implicitly_wait(2)
        self.url = checkout.url

    def open(self, path):
        self.browser.get(self.url + path)

    def field(self, name):
        return self.browser.find_element(By.NAME, name)

    def fill(self, **fields):
        for name, text in fields.items():
            field = self.field(name)
            field.clear()
            field.send_keys(text)

    def press(self, words):
        """Presses the only button with `words` in its name, and waits for the next page."""
        buttons = self.browser.find_elements(By.TAG_NAME, "button")
        (button,) = [button for button in buttons if words in button.accessible_name]
        button.click()
        # WebDriver may return from the click before the form is answered: the button goes with its page.
        WebDriverWait(self.browser, PAGE_SECONDS).until(lambda _: is_gone(button))

    def read(self, part="main"):
        return self.browser.find_element(By.CSS_SELECTOR, part).text

    def save(self, pan, holder, expiry_date="12/30"):
        self.open("/")
        self.fill(pan=pan, holder=holder, expiry_date=expiry_date)
        self.press("Save card")

    def keep_screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(SCREENSHOTS / f"checkout-{name}.png"))


def is_gone(element):
    try:
        element.is_enabled()
    except WebDriverException:
        return True
    return False


@pytest.fixture(scope="module")
def checkout(vault):
    checkout = Checkout(vault)
    yield checkout
    checkout.stop()


@pytest.fixture(scope="module")
def visitor(checkout):
    visitor = Visitor(checkout)
    yield visitor
    visitor.browser.quit()


def new_name():
    """A holder whom no other test knows."""
    return "Ada " + "".join(_random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(12)).capitalize()


def test_a_card_is_saved_and_its_token_shown(vault, checkout, visitor):
    pan, holder = checkout.new_pan(), new_name()
    spaced = " ".join(pan[start : start + 4] for start in range(0, 16, 4))
    visitor.save(spaced, holder)
    assert visitor.browser.current_url == f"{visitor.url}/receipt"
    assert visitor.read("h1") == "Card saved"
    assert visitor.read("#masked-pan") == masked(pan)
    token = visitor.read("#token")
    assert pan not in visitor.browser.page_source
    visitor.keep_screenshot("saved")

    known = vault.tokenize(pan)
    assert (known["token"], known["created"]) == (token, False)

    visitor.browser.refresh()
    assert visitor.read("#token") == token, "a reload sends no form again"
    visitor.save(pan, holder)
    assert visitor.read("#token") == token
    assert "was in the vault before" in visitor.read()


def test_a_card_is_found_by_its_holders_name_and_revealed(checkout, visitor):
    pans, holder = [checkout.new_pan(), checkout.new_pan()], new_name()
    while pans[0][-4:] == pans[1][-4:]:
        pans[1] = checkout.new_pan()
    for pan in pans:
        visitor.save(pan, holder)
    visitor.open("/find")
    visitor.fill(holder=f" {holder.upper()} ")
    visitor.press("Find")
    found = visitor.read("section")
    assert found.startswith("Cards found")
    for pan in pans:
        assert masked(pan) in found
        assert pan not in visitor.browser.page_source
    visitor.keep_screenshot("found")

    visitor.press(f"that ends in {pans[1][-4:]}")
    assert visitor.read("#pan") == pans[1]
    assert "12/30" in visitor.read()
    assert pans[1] not in visitor.browser.current_url
    visitor.keep_screenshot("revealed")


def test_a_name_that_nobody_has_finds_nothing(visitor):
    visitor.open("/find")
    visitor.fill(holder=new_name())
    visitor.press("Find")
    assert visitor.read("h2") == "No cards found"


def test_a_mistake_is_explained_at_its_field(checkout, visitor):
    pan, holder = checkout.new_pan(), new_name()
    visitor.save(pan[:-1] + str((int(pan[-1]) + 1) % 10), holder)
    field = visitor.field("pan")
    assert visitor.browser.title.startswith("Error: ")
    assert visitor.browser.switch_to.active_element == field
    assert field.get_attribute("aria-invalid") == "true"
    assert "pan-error" in field.get_attribute("aria-describedby").split()
    assert "not a card number" in visitor.read("#pan-error")
    assert field.get_attribute("value") == "", "the card number is not sent back"
    assert visitor.field("holder").get_attribute("value") == holder
    visitor.keep_screenshot("mistake")


def test_every_field_has_a_name_and_the_keyboard_reaches_everything(visitor):
    visitor.open("/")
    names = [visitor.field(name).accessible_name for name in ("pan", "holder", "expiry_date")]
    assert names == ["Card number", "Name on the card", "Expiry date (optional)"]
    completion = [visitor.field(name).get_attribute("autocomplete") for name in ("pan", "holder", "expiry_date")]
    assert completion == ["cc-number", "cc-name", "cc-exp"]
    landmarks = {visitor.browser.find_element(By.TAG_NAME, tag).aria_role for tag in ("header", "nav", "main", "footer")}
    assert landmarks == {"banner", "navigation", "main", "contentinfo"}

    reached = []
    for _ in range(7):
        webdriver.ActionChains(visitor.browser).send_keys(Keys.TAB).perform()
        active = visitor.browser.switch_to.active_element
        reached.append(active.get_attribute("name") or active.text)
    assert reached == [
        "Skip to the content", "Save a card", "Find cards", "pan", "holder", "expiry_date", "Save card",
    ]  # fmt: skip


def test_a_form_of_another_site_is_refused(checkout):
    with httpx.Client(base_url=checkout.url) as http:
        page = http.get("/")
        csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
        form = {"csrf": csrf, "pan": checkout.new_pan(), "holder": new_name()}
        for headers in (
            {},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": checkout.url, "sec-fetch-site": "same-site"},
        ):
            assert http.post("/cards", data=form, headers=headers).status_code == 403, headers
        own = {"origin": checkout.url, "sec-fetch-site": "same-origin"}
        assert http.post("/cards", data={**form, "csrf": csrf[::-1]}, headers=own).status_code == 403
        answer = http.post("/cards", data=form, headers=own)
        assert (answer.status_code, answer.headers["location"]) == (303, "/receipt")
        http.cookies.clear()
        assert http.post("/cards", data=form, headers=own).status_code == 403


def test_no_card_number_stays_in_memory(checkout):
    pan, holder = checkout.new_pan(), new_name()
    with httpx.Client(base_url=checkout.url, headers={"origin": checkout.url}) as http:
        csrf = http.get("/").text.split('name="csrf" value="')[1].split('"')[0]
        answer = http.post("/cards", data={"csrf": csrf, "pan": pan, "holder": holder}, follow_redirects=True)
        token = answer.text.split('id="token" class="number">')[1].split("<")[0]
        assert checkout.memory_has(token), "a receipt is kept: the search of the memory works"
        assert pan in http.post("/reveal", data={"csrf": csrf, "token": token}).text
    until = time.monotonic() + 5
    while checkout.memory_has(pan):
        assert time.monotonic() < until, "the card number is still in the checkout's memory"
        time.sleep(0.1)


def test_every_page_is_protected(checkout):
    with httpx.Client(base_url=checkout.url) as http:
        for path in ("/", "/find", "/receipt", "/style.css", "/nowhere"):
            headers = http.get(path).headers
            assert headers["cache-control"] == "no-store", path
            assert headers["referrer-policy"] == "no-referrer", path
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert "unsafe" not in headers["content-security-policy"], path
        cookie = http.get("/", headers={"cookie": ""}).headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert http.get("/", headers={"host": "evil.example"}).status_code == 421
