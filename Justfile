# Recipes run inside the project's own environment, whoever calls them.
export PATH := justfile_directory() / ".venv/bin:" + env("PATH") + ":/usr/sbin:/sbin"

# List the recipes.
default:
    @just --list --unsorted

# The collector with a broker of its own; ARGS as for `collector dev` (--broker mock, --nginx, --http ADDR, …).
run *ARGS:
    @collector dev {{ ARGS }}

# Everything: static checks, then every test on real parts. Installs nginx and wrk where they are missing.
test *ARGS: _nginx _wrk check
    pytest {{ ARGS }}

# ASYNC114 wants every startable function in a list on its command line, for the sake of ASYNC113.

# Formatting, lint, types, and the direction of imports.
check:
    ruff format --check .
    ruff check .
    flake8 --select ASYNC --extend-ignore ASYNC114 collector kafka_client tests nginx
    mypy
    lint-imports

# Put the code into the form that `check` wants.
fmt:
    ruff format .
    ruff check --fix .

# Only the tests on real Apache Kafka and real nginx.
integration *ARGS: _nginx _wrk
    pytest -m integration {{ ARGS }}

# Benchmarks against others, WHAT = kafka | http | ws | memory | stages | …: `just bench http [--quick] [--rows H1,B2] [--json FILE] [--markdown FILE]`.
bench WHAT *ARGS: _wrk
    @python -c 'import aiokafka, confluent_kafka, fastapi, httptools, kafka, starlette, trustme, uvicorn, uvloop, websockets' 2>/dev/null || uv sync --inexact --group bench
    @python -m tests.bench.{{ WHAT }} {{ ARGS }}

# The fault table, on real Kafka and nginx, beside FastAPI + aiokafka: `just faults [--rows 1,4] [--quick] [--json FILE] [--markdown FILE]`.
faults *ARGS: _nginx
    @python -c 'import aiokafka, fastapi, httptools, uvicorn, uvloop, websockets' 2>/dev/null || uv sync --inexact --group faults
    @python -m tests.faults {{ ARGS }}

# Random programs against the producer until 50 000 steps held every invariant; ARGS: --steps N, --seed N.
soak *ARGS:
    python -m tests.kafka_client.model.soak {{ ARGS }}

# Does nginx ever disagree with the lane on where a request ends? A million random requests through both; ARGS: --requests N, --seed N.
smuggling *ARGS: _nginx
    @python -m tests.smuggling {{ ARGS }}

# Remove what running and testing left: data of `collector dev`, caches, builds. The environment stays.
clean:
    rm -rf .collector dist build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
    find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The tests put a real nginx in front, and watch system calls with strace.
_nginx: (_debian "the tests" "nginx" "nginx-light") (_debian "the tests" "strace" "strace")

# The load over HTTP.
_wrk: (_debian "the benchmarks" "wrk" "wrk")

# Install what is missing; RUNLEVEL=1 keeps apt from starting a service.
_debian WHO PROGRAM PACKAGE:
    #!/usr/bin/env bash
    set -euo pipefail
    command -v {{ PROGRAM }} >/dev/null && exit 0
    need="{{ WHO }} need {{ PROGRAM }}; install it (Debian: apt-get install {{ PACKAGE }}) and call again"
    command -v apt-get >/dev/null || { echo "$need" >&2; exit 1; }
    sudo=''
    if [ "$(id -u)" != 0 ]; then command -v sudo >/dev/null || { echo "$need" >&2; exit 1; }; sudo=sudo; fi
    echo "installing {{ PACKAGE }} with apt-get …"
    $sudo apt-get update -qq
    $sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {{ PACKAGE }} >/dev/null
    command -v {{ PROGRAM }} >/dev/null || { echo "$need" >&2; exit 1; }
