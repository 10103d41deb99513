# `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: help deps build test fmt-check lint deny unit integration chaos demo demo-down fmt advisories fixtures fuzz bench

LAB := $(or $(VIFD_LAB),$(CURDIR)/target/lab)
# The lab's own Open vSwitch, os-vif and cargo-deny come before the machine's.
export PATH := $(LAB)/bin:$(LAB)/root/usr/bin:$(LAB)/root/usr/sbin:$(LAB)/root/usr/lib/openvswitch-switch:$(PATH)
SHELL := /bin/bash

help: ## This list
	@echo 'vifd keeps the virtual interfaces of a host the way a controller wants them.'
	@echo 'Targets (root on Debian 12 with Rust; nothing of the host is started or changed):'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make demo KEEP=1 leaves the demo running; make demo-down ends it.'
	@echo '  make bench ONLY=plug,bulk QUICK=1 measures parts, in small.'

demo: ## See it work: a private Open vSwitch, vifd on it, guests that ping each other
	@integration/deps demo
	@[[ -x target/debug/vifd && -x target/debug/demo ]] || echo '  building (a few minutes, once)'
	@cargo build $$([[ -x target/debug/vifd && -x target/debug/demo ]] && echo --quiet) --package vifd --package vifd-integration --bin vifd --bin demo
	@target/debug/demo $(if $(KEEP),--keep)

demo-down: ## End a demo that was left running
	@cargo build --quiet --package vifd-integration --bin demo
	@target/debug/demo --down

deps: ## Install and unpack what the tests need
	@integration/deps test

build: ## Build everything
	cargo build --workspace --all-targets

test: deps fmt-check lint deny unit integration ## Everything that must pass, against real daemons
	@echo 'test: everything passed'

fmt-check: ## Formatting
	cargo fmt --all -- --check

lint: ## Lints, none tolerated
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## Dependencies: duplicates, licences, sources
	cargo deny --workspace check --hide-inclusion-graph bans licenses sources

advisories: ## Dependencies: known vulnerabilities (downloads the RustSec database)
	cargo deny --workspace check advisories

# Cases of properties are the same in every run: what a change is refused for is its own. Others are drawn by hand.
unit: ## Tests that need no daemon of the lab's
	PROPTEST_RNG_SEED=$(or $(SEED),1) cargo test --quiet --workspace --exclude vifd-integration

integration: ## Tests against real daemons, in namespaces of their own
	@integration/previous
	cargo build --package vifd
	cargo test --package vifd-integration

chaos: ## Faults at random moments: N=10000 rounds, SEED=7, ROUND=3 for that one alone (docs/testing.md)
	@cargo build --quiet --package vifd --package vifd-integration --bin vifd --bin chaos
	@target/debug/chaos $(if $(SEED),--seed $(SEED)) $(if $(ROUND),--round $(ROUND),$(if $(N),--rounds $(N))) $(CHAOS)

bench: deps ## Measurements beside the floor and peers (half an hour on a quiet machine)
	cargo build --release --package vifd --package vifd-benches --bins
	target/release/bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

# No sanitizer: the code has no unsafe, and without one any Rust will do. Linking at leisure would take minutes.
FUZZED := target/fuzz/$(shell rustc -vV | sed -n 's/^host: //p')/release/target
fuzz: ## Fuzz everything that decodes, T seconds each (60); TARGET=... for one
	@command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root $(LAB) cargo-fuzz
	CARGO_PROFILE_RELEASE_LTO=off cargo fuzz build --fuzz-dir integration/fuzz --target-dir target/fuzz \
	  --sanitizer none --features libfuzzer target
	@cargo run --quiet --package vifd-fuzz --bin campaign -- $(FUZZED) target/fuzz $(or $(T),60) $(TARGET)

fixtures: deps ## Write the sample records anew with the real os-vif
	$(LAB)/venv/bin/python -B -W ignore integration/osvif/driver.py samples integration/fixtures/os-vif
	$(LAB)/venv/bin/python -B -W ignore integration/osvif/driver.py examples docs/examples

fmt: ## Format the code
	cargo fmt --all
