#!/bin/sh
# The second command: installs what is missing, builds, and passes all tests: the release build, then the same under
# AddressSanitizer and UndefinedBehaviorSanitizer, then, where clang is installed, built by clang without warnings, then, where
# "tools/setup.sh arm64" has been run, built for arm64 and emulated.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh tests

# build FOLDER OPTIONS...: warnings are errors
build() {
    folder=$1
    shift
    mkdir -p "$folder"
    { cmake -S . -B "$folder" -DMOBILEVLM_TESTS=ON -DMOBILEVLM_WERROR=ON "$@" &&
        cmake --build "$folder" -j "$(nproc)"; } >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
}

echo "== release"
build build -DCMAKE_BUILD_TYPE=Release
ctest --test-dir build --output-on-failure -j "$(nproc)"

echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMOBILEVLM_SANITIZE=address,undefined
ctest --test-dir build-asan --output-on-failure -j "$(nproc)"

if command -v clang >/dev/null && echo '#include <omp.h>' | clang -fopenmp -x c -fsyntax-only - 2>/dev/null; then
    echo "== clang"
    build build-clang -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang
    ctest --test-dir build-clang --output-on-failure -j "$(nproc)"
else
    echo "== clang with OpenMP is not installed: its build is left out"
fi

if command -v qemu-aarch64-static >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null; then
    echo "== arm64, emulated"
    { cmake --preset arm64 && cmake --build build-arm64 -j "$(nproc)"; } >build-arm64.log 2>&1 || { cat build-arm64.log; exit 1; }
    mv build-arm64.log build-arm64/build.log
    sh tests/arm64_test.sh build build-arm64
else
    echo "== arm64 is left out: tools/setup.sh arm64 installs what it needs"
fi
