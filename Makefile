# The same commands run on a developer's machine and in CI.

.PHONY: help deps build demo test chaos check sqlx openapi bench bench-plan fuzz

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## Install what is missing of the Debian packages
	@scripts/install-deps.sh

build: deps ## Build all programs
	cargo build --workspace --locked

demo: build ## Start a farm, build the examples, run them, show where the time went (KEEP=1 keeps it up)
	@target/debug/demo

test: build ## Run every test, with real services
	@scripts/run-tests.sh

chaos: build ## Builds while things die, half an hour (CHAOS_SECONDS, CHAOS_SEED)
	@target/debug/chaos

check: ## Format, lints, tidy rules, stored queries and API description up to date
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask tidy
	cargo xtask sqlx --check
	@cargo run --quiet --locked -p coordinator -- openapi | diff -u docs/openapi.json - \
	  || { echo "docs/openapi.json is out of date: run make openapi"; exit 1; }

sqlx: ## Write the stored queries anew after a change of SQL
	cargo xtask sqlx

openapi: ## Write the API description anew after a change of the API
	cargo run --quiet --locked -p coordinator -- openapi > docs/openapi.json

bench: deps ## Builds with Slipway, BuildKit and buildah, side by side: writes the table of bench/README.md
	@scripts/install-deps.sh buildah
	cargo build --release --locked -p coordinator -p worker -p cli -p s3server -p bench
	@target/release/bench $(ARGS)

bench-plan: ## Time from a Dockerfile to its plan
	cargo bench --locked -p dockerfile --bench planning

fuzz: ## Fuzz the Dockerfile front end, ten minutes a target (needs a nightly compiler and cargo-fuzz)
	@scripts/fuzz.sh
