#!/bin/sh
# The dependency rule of the house, and a few more that a reader relies on. Prints each breach; exit 1 if there is one.
cd "${1:-.}" || exit 2

# breach "rule" < lines that break it
breach() {
    lines=$(cat)
    [ -z "$lines" ] || printf '%s:\n%s\n' "$1" "$lines"
}

# include_other_than FOLDER HEADER: lines below the folder that include "..." what is neither there nor the header
include_other_than() {
    grep -rn '#include "' "$1" --include='*.[ch]' | while IFS= read -r line; do
        file=${line%%:*} name=${line#*\"}
        name=${name%%\"*}
        path=$(realpath -m --relative-to=. "${file%/*}/$name")
        case $name:$path in "$2:"*) ;; *:"$1"/*) [ -e "$path" ] || echo "$line" ;; *) echo "$line" ;; esac
    done
}

check() {
include_other_than src/cli mobilevlm.h | breach "src/cli sees the public header and itself"
grep -n '#include "[^"]*/' src/*.[ch] | grep -vE '"\.\./kernels/kernels\.h"' |
    breach "src sees the public header, itself and kernels/kernels.h"
include_other_than kernels none | breach "kernels see themselves"
grep -n '#include <' kernels/*.[ch] kernels/c/*.[ch] |
    grep -vE '<(math|stdbool|stddef|stdint|string)\.h>|^kernels/cpu\.c:.*<(cpuid|stdio|sys/auxv)\.h>|^kernels/kernels\.c:.*<time\.h>' | breach "kernels see libc"
grep -nE 'omp\.h|#pragma omp|omp_[a-z]+\(' -r src kernels tools include --include=*.[ch] |
    breach "no OpenMP: its run time ends the process where it gets no memory"
grep -n 'pthread_create' -r src kernels tools include --include=*.[ch] | grep -vE '^src/(threads|cli/(batch_feed|bench_energy))\.c:' |
    breach "threads are started in src/threads.c, and for pictures and energy beside the answers"
grep -n 'stb_image' -r src kernels tools include --include=*.[ch] | grep '#include' | grep -v '^src/image\.c:' |
    breach "stb only in src/image.c"
grep -nE 'immintrin\.h|x86intrin\.h|arm_neon\.h|_mm(256|512)?_[a-z]|\bv[a-z]+q?_[fsu](8|16|32)\(' -r src kernels tools \
    --include=*.[ch] | grep -vE '^kernels/(x86|arm)/' | breach "intrinsics only in kernels/x86 and kernels/arm"
grep -nE '\b(exit|abort|printf|puts|perror)\(|fprintf\(|assert\(' src/*.[ch] kernels/*.[ch] kernels/*/*.[ch] |
    grep -vE 'vsnprintf|snprintf|_Static_assert' | breach "no exit, abort, assert or printing in src and kernels"
grep -nE 'malloc|calloc|realloc|free\(' kernels/*.[ch] kernels/*/*.[ch] | breach "no memory is allocated in kernels"
grep -nE 'fast-math|march=native' CMakeLists.txt CMakePresets.json | grep -v 'No fast-math' |
    breach "no fast-math, no march=native"
grep -nE '[[:space:]]+$' -r src kernels tools include tests models CMakeLists.txt README.md --include=*.[chS] \
    --include=*.py --include=*.sh --include=*.md --include=CMakeLists.txt 2>/dev/null | breach "no white space at line ends"
grep -lP '\t' -r src kernels include tools tests --include=*.[ch] | breach "no tabs"
}

breaches=$(check)
[ -z "$breaches" ] && exit 0
printf '%s\n' "$breaches"
exit 1
