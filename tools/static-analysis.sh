#!/bin/sh
# clang-tidy (.clang-tidy says what is left out, and why) and cppcheck over all of ours but the kernels' intrinsics. Fails on a
# finding.
#   tools/static-analysis.sh [BUILD]     a build folder with compile_commands.json, made with clang (default build-clang)
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-clang}
files=$(ls src/*.c src/cli/*.c tools/convert/*.c kernels/kernels.c kernels/cpu.c)
log=$build/static-analysis.log

# -Wno-unused-value: status.h tells the analyzer what a failure returns by a comma
printf '%s\n' $files | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet --extra-arg=-Wno-unused-value >"$log" 2>&1 || {
    grep -E -A3 '(warning|error):' "$log" || cat "$log"
    exit 1
}

# Left out, and why:
#   bench_tests.c memleak            realloc's result is kept in the struct it came from
#   json_memory.c                    overlappingWriteUnion: one member of the union is written, by way of another block
#   batch_feed.c nullPointer         there are more places than items that use one
#   sampler.c log(0)                 the sum holds exp(0) of the largest
#   tokenizer_files.c uninitvar      json_object_foreach sets the key
cppcheck --enable=warning,performance,portability --std=c11 --quiet -j "$(nproc)" --error-exitcode=1 \
    -Iinclude -Isrc -Ikernels -Itools/convert -D_GNU_SOURCE -DKERNEL_ISA=c \
    --suppress=memleak:src/cli/bench_tests.c --suppress=overlappingWriteUnion:src/cli/json_memory.c \
    --suppress=nullPointer:src/cli/batch_feed.c --suppress=invalidFunctionArg:src/sampler.c \
    --suppress=uninitvar:tools/convert/tokenizer_files.c $files
echo "static analysis: $(printf '%s\n' $files | wc -l) files, no findings"
