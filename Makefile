# The habits of this project. `make help` lists them.
SHELL := /bin/bash
CARGO ?= cargo
TOOLS := target/tools
CYCLONEDX_VERSION := 0.5.9
DEB_VERSION := 3.8.0
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
OHA_VERSION := 1.16.0
FUZZ_SECONDS ?= 60
DIR ?= run/dev
# What is built for tests is built once: the same features, for programs and tests alike.
EVERYTHING := --workspace --all-targets --all-features
# Most tests wait for a daemon rather than compute.
TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
KRYOPTIC := target/kryoptic/release/libkryoptic_hsm.so

.DEFAULT_GOAL := help
.PHONY: help run test test-faults soak kryoptic test-modules lint bench chaos fuzz test-fuzz fuzz-planted sbom deb reproducible miri test-systemd schema clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: ## start a development vault in $(DIR) and show the first token
	@scripts/needs run
	@$(CARGO) build --locked -p vaultd -p vaultctl -p vault-client --bin vaultd --bin vaultctl --example tokenize
	@exec scripts/run $(DIR)

test: ## run every test that CI runs
	@scripts/needs test
	$(CARGO) build --locked $(EVERYTHING)
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --locked --workspace --all-features
	@$(MAKE) --no-print-directory test-fuzz
	@scripts/pytest tests/python
	@scripts/test-systemd --if-possible

test-faults: ## every fault test for longer, with one summary (FAULTS="faults outage" …, VAULT_TEST_ROUNDS, VAULT_TEST_KILLS)
	@scripts/needs run
	$(CARGO) build --locked $(EVERYTHING)
	@scripts/test-faults $(FAULTS)

soak: ## an hour at 70 % of peak with faults every few seconds (SOAK_MINUTES=60): nothing wrong, lost or growing
	@scripts/needs run
	$(CARGO) build --locked --release -p vaultd -p chaos-hsm -p vault-tests --bins --lib
	@target/release/soak

test-systemd: ## install the package in a booted Debian container and try it there, as root
	@scripts/test-systemd

kryoptic: ## build Kryoptic, a second software token, as a PKCS#11 module for tests
	@scripts/needs kryoptic
	$(CARGO) build --locked --release --manifest-path tests/kryoptic-hsm/Cargo.toml --target-dir target/kryoptic
	@ls $(KRYOPTIC)

test-modules: kryoptic ## run the end-to-end tests on every PKCS#11 module that can be had (MODULES="kryoptic nss" …)
	@scripts/needs modules
	$(CARGO) build --locked $(EVERYTHING)
	scripts/test-modules $(MODULES)

lint: ## formatting, clippy, documentation links, dependency rules, exposure of the units, bugs to plant
	@scripts/needs lint
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/kryoptic-hsm/Cargo.toml --check
	$(CARGO) clippy --locked $(EVERYTHING) -- -D warnings
	@# As its users have it: without the features that other packages turn on.
	$(CARGO) clippy --locked -p vault-client --no-deps -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --all-features --no-deps --quiet
	@scripts/tool $(TOOLS) cargo-deny $(DENY_VERSION)
	$(TOOLS)/bin/cargo-deny --all-features check bans licenses sources
	@scripts/units
	@# A bug that cannot be planted is not looked for.
	@for patch in fuzz/planted/*.patch; do git apply --check "$$patch" || exit 1; done

bench: ## every line of the budget, as tables and plots (BENCH="--quick", "--full", "--only detokenize,empty_handler" …)
	@scripts/needs run
	@case "$(BENCH)" in *--oha*) scripts/tool $(TOOLS) oha $(OHA_VERSION);; esac
	@case "$(BENCH)" in *--full*|*alternatives*) scripts/venv target/bench-venv bench/alternatives/requirements.txt || true;; esac
	@$(CARGO) build --locked --release -p vaultd -p chaos-hsm -p vault-bench
	@target/release/bench $(BENCH)

sbom: ## write what vaultd and vaultctl are made of to target/sbom/*.cdx.json (CycloneDX)
	@scripts/needs build
	@scripts/tool $(TOOLS) cargo-cyclonedx $(CYCLONEDX_VERSION)
	@scripts/sbom $(TOOLS)/bin/cargo-cyclonedx

deb: sbom ## pack vaultd and vaultctl into target/debian/*.deb (VERSION=… for another than the workspace's)
	@scripts/needs deb
	scripts/release
	@scripts/tool $(TOOLS) cargo-deb $(DEB_VERSION)
	scripts/deb release $(TOOLS)/bin/cargo-deb $(VERSION)

reproducible: ## pack the last commit twice in two places and compare every byte
	@scripts/needs deb
	@scripts/tool $(TOOLS) cargo-deb $(DEB_VERSION)
	@scripts/tool $(TOOLS) cargo-cyclonedx $(CYCLONEDX_VERSION)
	@scripts/reproducible $(TOOLS)

miri: ## run the logic around unsafe code in Miri; needs a nightly toolchain with it
	MIRIFLAGS=-Zmiri-disable-isolation RUSTUP_TOOLCHAIN=nightly $(CARGO) miri test --locked -p vaultd --lib -- \
		hsm::breaker hsm::class hsm::keys hsm::stats

chaos: ## build target/release/libchaos_hsm.so, with which operators rehearse an outage
	@scripts/needs build
	$(CARGO) build --locked --release -p chaos-hsm

fuzz: ## run each fuzz target for FUZZ_SECONDS (60), one on each processor (TARGETS="call domain" …)
	@scripts/needs fuzz
	@scripts/tool $(TOOLS) cargo-fuzz $(FUZZ_VERSION)
	@CARGO_FUZZ=$(TOOLS)/bin/cargo-fuzz scripts/fuzz $(FUZZ_SECONDS) whole $(TARGETS)

test-fuzz: ## run each fuzz target for 10 seconds, built from what `make test` builds
	@scripts/needs fuzz
	@scripts/fuzz 10 own

fuzz-planted: ## see that the fuzz targets find bugs that are planted, each within a minute
	@scripts/needs fuzz
	@scripts/fuzz-planted

schema: ## write config/vaultd.schema.json anew from the code
	$(CARGO) run --locked --quiet -p vaultd -- schema > config/vaultd.schema.json

clean: ## remove what was built and the development vault
	$(CARGO) clean
	rm -rf run bench/out
