# The commands of the project. `make demo` and `make test` install what they need into .venv and .cache.

PYTHON ?= $(shell scripts/find-python)
BIN := .venv/bin
RUN := PYTHONUNBUFFERED=1 $(BIN)/python
MATURIN := VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin
# During development the binding compiles quickly and runs a little slower. `PROFILE=release make build` builds what is
# published; continuous integration and all measurements use that.
PROFILE ?= $(if $(CI),release,quick)
# The binding is linked into Python, so it has no Rust tests: the Python tests cover it.
RUST_TESTS := -p wire -p engine -p benchmarks
# The behaviour tests that `make check` runs: those where the server runs in the test's own process.
QUICK_TESTS := tests/behaviour -k embedded
# Tests mostly wait for servers and clients, so more of them run at a time than there are cores. The tests of a file stay
# in one process, in their order.
PARALLEL := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2) --dist loadfile
# The tests start many processes. If PYTHONDONTWRITEBYTECODE is set, each would compile these again.
COMPILED := python tests/behaviour tests/faults tests/hosts
# Installs a program from Debian's package of that name, if that is possible. What needs it says so where it is missing.
installed = @command -v $(1) >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq --yes $(1); } >/dev/null || true

# The tests whose coverage `make coverage` reports, and pytest's options for them.
COVERED ?= $(PARALLEL) tests/unit tests/behaviour

.PHONY: demo test package-test check lint format build docs conformance judge model soak fuzz coverage instructions bench bench-all bench-hosts screenshots licenses clean

# `make demo HOSTS=2`: as two servers on two ports, which are one through a Redis.
demo: build
	$(RUN) $(if $(HOSTS),scripts/demo_hosts.py $(HOSTS),-m hubbub demo)

test: build .venv/test
	$(call installed,redis-server)
	cargo test --quiet $(RUST_TESTS)
	$(BIN)/python -m compileall -q $(COMPILED)
	$(RUN) -m pytest --ignore tests/package $(PARALLEL)
	$(RUN) tests/conformance/run.py

# Build the source distribution, and a wheel from it for each installed Python, and install them as a new user does.
package-test: .venv/test
	$(RUN) -m pytest tests/package

lint: build docs .venv/test .venv/lint .venv/bench-all tests/client/node_modules/made
	cargo fmt --all --check
	cargo fmt --all --check --manifest-path fuzz/Cargo.toml
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy python
	for part in examples/* benchmarks scripts tests/[a-z]*; do $(BIN)/mypy $$part || exit 1; done
	MYPYPATH=python $(RUN) -m mypy.stubtest hubbub._core --concise
	tests/client/node_modules/.bin/tsc --project tests/client
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docs/compose.yaml
	$(BIN)/zizmor --quiet --offline .github

format:
	cargo fmt --all
	cargo fmt --all --manifest-path fuzz/Cargo.toml
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Formatting, types, and the quick tests, without npm, plots and documentation.
check: build .venv/test .venv/lint
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy python
	$(call installed,redis-server)
	cargo test --quiet $(RUST_TESTS)
	$(RUN) -m pytest --quiet tests/unit $(PARALLEL)
	$(RUN) -m pytest --quiet $(QUICK_TESTS) $(PARALLEL)

build: .venv/build
	@command -v cargo >/dev/null || { echo "Building Hubbub needs Rust 1.88 or later: install it with rustup." >&2; exit 1; }
	@echo "Compiling Hubbub ($(PROFILE) profile): a minute or two the first time, seconds after an edit. Each crate is named as it compiles." >&2
	$(MATURIN) develop --profile $(PROFILE)

# All of Autobahn's cases; `make test` runs the quick ones.
conformance: build
	$(RUN) tests/conformance/run.py --all

conformance judge model soak instructions bench bench-all bench-hosts: PROFILE = release

# Other projects' judgement of our ASGI server: their test-suites, fetched from the package index (uvicorn's of WebSockets;
# Starlette's, FastAPI's and python-socketio's, which also run on uvicorn for comparison), the cases of h1spec, the attacks
# of slowhttptest, and bodies of 5 GB.
judge: build .venv/test
	$(RUN) tests/asgi/uvicorn_websockets.py
	$(RUN) tests/asgi/starlette_suite.py
	$(RUN) tests/asgi/fastapi_suite.py
	$(RUN) tests/asgi/socketio_suite.py
	$(RUN) -m pytest tests/behaviour/test_http1_cases.py
	$(RUN) tests/asgi/slow_http.py
	$(RUN) tests/asgi/large_bodies.py

# Half a million numbered messages under each of five disturbances; each message must arrive once and in order. Then three
# hosts, under each fault of a host, of Redis and of the network between them, and a million ids of five hosts.
model: build .venv/test
	$(RUN) tests/faults/exact_model.py
	$(RUN) tests/hosts/hosts_model.py
	$(RUN) tests/hosts/hosts_memory_model.py
	$(RUN) tests/hosts/hosts_ids_model.py

# Ten minutes of steady load; prints the memory and the descriptors of each process.
soak: build .venv/test
	$(RUN) tests/faults/soak.py

fuzz:
	fuzz/run 60

# How much of the Python and Rust code the tests reach. Run `make build` afterwards: the binding is instrumented.
coverage: build .venv/test .venv/coverage
	command -v cargo-llvm-cov >/dev/null || cargo install --locked cargo-llvm-cov@0.9.1
	rustup component add llvm-tools
	scripts/coverage $(COVERED)

bench: build .venv/bench
	$(RUN) benchmarks/run.py bench

# Count the server's instructions for a message, and compare them with the stored figures. Needs valgrind.
instructions: build .venv/bench
	$(call installed,valgrind)
	$(RUN) benchmarks/instructions.py

# All peers and all workloads, and the plots; socketify needs libuv (Debian: libuv1).
bench-all: build .venv/bench-all
	$(RUN) benchmarks/run.py bench-all

# What several hosts on a Redis cost. Needs redis-server.
bench-hosts: build .venv/bench-all
	$(call installed,redis-server)
	$(RUN) benchmarks/hosts.py

# Build the site, site/index.html. Mistakes in pages and links make it fail.
docs: build .venv/docs
	$(RUN) scripts/docs.py

# The screenshots in docs/images. Needs Chromium, and fonts for Chinese, Arabic and emoji.
screenshots: build .venv/test
	$(RUN) scripts/screenshots.py

# THIRD-PARTY-LICENSES.txt, a part of the wheels. Run this after each change of Cargo.lock.
licenses:
	command -v cargo-about >/dev/null || cargo install --locked cargo-about@0.9.3 --features cli
	cargo about generate --locked --fail --manifest-path crates/python/Cargo.toml --config crates/python/about.toml \
		--output-file THIRD-PARTY-LICENSES.txt crates/python/about.hbs

clean:
	rm -rf .venv .cache site target fuzz/target tests/client/node_modules tests/client/node22/node_modules tests/docs/react/node_modules

.venv/made:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@

# Each installs one dependency group of pyproject.toml.
.venv/build .venv/test .venv/lint .venv/bench .venv/bench-all .venv/docs .venv/coverage: pyproject.toml .venv/made
	$(BIN)/python -m pip install --quiet --group $(notdir $@)
	touch $@

# TypeScript, for checking the browser client.
tests/client/node_modules/made: tests/client/package-lock.json
	@command -v npm >/dev/null || { echo "Checking hubbub.js needs npm: install Node.js 20.19 or later with it." >&2; exit 1; }
	npm ci --prefix tests/client --silent --no-audit --no-fund
	touch $@
