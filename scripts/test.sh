#!/usr/bin/env bash
# Checks everything: lint, format, types, import rules, then the tests, first the fast ones and then the rest.
#
#   scripts/test.sh [fast] [arguments for pytest ...]
#
# "fast" leaves out the tests that are slow or start whole clusters. The first call makes .venv and installs the package with
# its test extra, which takes minutes; later calls install again only when pyproject.toml has changed.
# PYTHON names the Python (>= 3.11) to make .venv with; ASGD_DATA the folder with real data sets, without which the tests
# that need CIFAR-10 are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. scripts/environment.sh

# Runs every check even when one fails, so that one call shows all that is wrong.
check_source() {
    local failed=()
    step "ruff check" && "$python" -m ruff check . || failed+=("ruff check")
    step "ruff format --check" && "$python" -m ruff format --check . || failed+=("ruff format")
    step "mypy" && "$python" -m mypy || failed+=("mypy")
    step "lint-imports" && .venv/bin/lint-imports --no-cache || failed+=("lint-imports")
    [ ${#failed[@]} -eq 0 ] || fail "failed: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
}

# Runs pytest on the tests of some marks. Status 5, "no tests", is only allowed when another part had some.
part() {
    local marks=$1 status=0
    shift
    "$python" -m pytest -m "$marks" "$@" || status=$?
    if [ "$status" -eq 5 ]; then
        parts_without_tests=$((parts_without_tests + 1))
    elif [ "$status" -ne 0 ]; then
        exit "$status"
    fi
}

fast=
if [ "${1:-}" = fast ]; then
    fast=yes
    shift
fi

# Whoever has turned bytecode off would compile the package again in each of the hundreds of processes of the tests.
unset PYTHONDONTWRITEBYTECODE
install test
check_source
parts_without_tests=0
step "fast tests"
part "not slow and not cluster" -q -n 2 "$@"
if [ -z "$fast" ]; then
    step "slow tests"
    part "slow and not cluster" -q -n 2 --durations=5 "$@"
    step "whole clusters" # one after the other: each takes both cores, and some measure
    part "cluster" -q --durations=5 "$@"
    [ "$parts_without_tests" -lt 3 ] || fail "pytest found no tests"
else
    [ "$parts_without_tests" -lt 1 ] || fail "pytest found no fast tests"
fi
