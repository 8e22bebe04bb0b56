#!/bin/sh
# Installs the Debian packages that the project is built with, if any is missing. Sourced or run by demo.sh and test.sh.
#   tools/setup.sh [tests] [check] [arm64]
#     tests   also what only the tests need
#     check   clang with its sanitizers, static analysis, valgrind, coverage
#     arm64   what the preset arm64 needs, and to run what it builds (only on Debian, whose mirrors have both architectures)
set -eu

build_packages="gcc libc6-dev make cmake pkg-config libstb-dev libjansson-dev libxxhash-dev libutf8proc-dev zlib1g-dev libedit-dev"
test_packages="libcmocka-dev libsimde-dev"
arm64_packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static libjansson-dev:arm64 libxxhash-dev:arm64 libutf8proc-dev:arm64
zlib1g-dev:arm64 libcmocka-dev:arm64"

check_packages="clang libclang-rt-dev llvm clang-tidy cppcheck valgrind"

missing() {
    for package in "$@"; do
        case $package in
        *:*) architecture=${package#*:} ;;
        *) architecture="(all|$(dpkg --print-architecture))" ;; # a library that is there for arm64 alone is missing
        esac
        dpkg-query -W -f '${Status} ${Architecture}\n' "${package%:*}" 2>/dev/null |
            grep -Eq "install ok installed $architecture\$" || printf '%s ' "$package"
    done
}

wanted=$build_packages
for what; do
    case $what in
    tests) wanted="$wanted $test_packages" ;;
    check) wanted="$wanted $test_packages $check_packages" ;;
    arm64) wanted="$wanted $arm64_packages" ;;
    esac
done
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is no Debian; needed are a C11 compiler, CMake 3.22, pkg-config, stb, jansson, utf8proc," \
         "xxhash, zlib and, for the tests, cmocka. Going on with what there is." >&2
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
added=
case $lacking in *:arm64*)
    dpkg --print-foreign-architectures | grep -q '^arm64$' || { $root dpkg --add-architecture arm64 && added=yes; } ;;
esac
# shellcheck disable=SC2086
{ $root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $lacking; } >&2 || {
    # Ubuntu has arm64 on another server: without it apt would fail from now on
    [ -z "$added" ] || $root dpkg --remove-architecture arm64
    echo "setup: these could not be installed: $lacking" >&2
    exit 1
}
