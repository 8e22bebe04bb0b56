#!/bin/sh
# Lines and branches of every parser that the tests and the kept fuzz corpus execute (clang, llvm-cov). Fails below 95 % of lines or
# 90 % of branches of all together, and names the files below either.
#   tools/coverage.sh
set -eu
cd "$(dirname "$0")/.."
build=$PWD/build-coverage
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang -DMOBILEVLM_COVERAGE=ON >/dev/null
cmake --build "$build" -j "$(nproc)" >"$build/build.log" 2>&1 || { cat "$build/build.log" && exit 1; }
rm -rf "$build/profiles"
# some tests limit the size of files, and the profile is one: they fail here, and count as far as they went
LLVM_PROFILE_FILE="$build/profiles/%4m.profraw" ctest --test-dir "$build" -j "$(nproc)" \
    -E 'test_kernels|test_random_model|android|install|house_rules|hardening|hostile_load' >"$build/ctest.log" 2>&1 || true
version=$(clang -dumpversion | cut -d . -f 1)
tool() {
    name=$1
    shift
    if command -v "$name-$version" >/dev/null; then "$name-$version" "$@"; else "$name" "$@"; fi
}
tool llvm-profdata merge -sparse "$build"/profiles/*.profraw -o "$build/all.profdata"
parsers=$(sed -n '/^set(parsers/,/)/p' CMakeLists.txt | tr -d '()' | tr ' ' '\n' | grep '\.c$')
objects=$(find "$build" -type f -perm -u+x ! -name '*.so' ! -path '*CMakeFiles*' | sed 's/^/-object /')
# the program comes first: the objects alone are not taken for one
tool llvm-cov report "$build/mobilevlm" $objects -instr-profile="$build/all.profdata" $parsers >"$build/report.txt"
awk '
    function percent(text) { sub("%", "", text); return text + 0 }
    /\.c / || /^TOTAL/ {
        printf "%-34s lines %7s  branches %7s%s\n", $1, $10, $13,
            percent($10) < 95 || percent($13) < 90 ? "   below 95 / 90" : ""
    }
    /^TOTAL/ { good = percent($10) >= 95 && percent($13) >= 90 }
    END { exit !good }' "$build/report.txt"
