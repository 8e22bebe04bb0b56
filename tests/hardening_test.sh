#!/bin/sh
# Has a build what makes a fault harder to use?
#   tests/hardening_test.sh BUILD [PREFIX]     PREFIX of the tools: aarch64-linux-gnu-
# The programs load anywhere, have no memory that is both writable and executable, and make their tables read-only before they
# run; the code that reads files has guards on its stack and checked copies (the latter unless sanitizers watch).
set -eu
build=$1 prefix=${2:-}
status=0
complain() {
    echo "hardening_test: $1" >&2
    status=1
}

for program in mobilevlm mobilevlm-convert; do
    headers=$("${prefix}readelf" -hldW "$build/$program")
    # has PATTERN WHAT
    has() {
        printf '%s\n' "$headers" | grep -Eq "$1" || complain "$build/$program: $2"
    }
    has 'Type: +DYN' 'is loaded at a fixed address'
    has 'GNU_RELRO' 'its tables stay writable'
    has 'FLAGS.*(BIND_NOW|NOW)' 'binds functions late, so their table stays writable'
    has 'GNU_STACK .* RW ' 'its stack is executable'
    ! printf '%s\n' "$headers" | grep -Eq '^ *LOAD .* RWE ' || complain "$build/$program: has writable code"
done
for library in libmobilevlm.a libcommands.a libconvert.a libcli_options.a; do
    calls=$("${prefix}nm" -u "$build/$library" 2>/dev/null)
    # calls SYMBOL WHAT
    calls() {
        printf '%s\n' "$calls" | grep -q " $1\$" || complain "$build/$library: $2"
    }
    calls '__stack_chk_fail' 'has no guards on its stack'
    if ! printf '%s\n' "$calls" | grep -Eq ' __(asan|ubsan|tsan)_'; then
        calls '__[a-z]*_chk' 'has no checked copies'
    fi
done
exit $status
