#!/bin/sh
# Installs the Debian packages that the project is built with, if any is missing. Sourced or run by demo.sh and test.sh.
#   tools/setup.sh [tests]     with "tests" also what only the tests need
set -eu

build_packages="gcc libc6-dev make cmake pkg-config libgomp1 libstb-dev libjansson-dev libxxhash-dev zlib1g-dev libedit-dev"
test_packages="libcmocka-dev libsimde-dev"

missing() {
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || printf '%s ' "$package"
    done
}

wanted=$build_packages
[ "${1:-}" = tests ] && wanted="$wanted $test_packages"
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is no Debian; needed are a C11 compiler with OpenMP, CMake 3.22, pkg-config, stb, jansson, xxhash," \
         "zlib and, for the tests, cmocka. Going on with what there is." >&2
    exit 0
fi
# shellcheck disable=SC2086 # words are meant to be split
lacking=$(missing $wanted)
[ -z "$lacking" ] && exit 0
echo "setup: installing $lacking" >&2
root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: not root and no sudo: install $lacking" >&2; exit 1; }
    root=sudo
fi
# shellcheck disable=SC2086
{ $root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $lacking; } >&2
