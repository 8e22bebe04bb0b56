#!/bin/sh
# Looks for inputs that crash, hang or leak: every fuzz target of tests/fuzz for some minutes, under libFuzzer with
# AddressSanitizer and UndefinedBehaviorSanitizer. Needs clang. Prints executions, coverage and findings; fails on a finding.
#   tools/fuzz.sh [-m MINUTES] [-u EXECUTIONS] [-j JOBS] [TARGET...]
#     -m   for each target (default 1; fractions are fine)
#     -u   go on, round after round, until all targets together have executed so many inputs: 1000000000
#     -j   targets at a time (default: as many as there are cores)
#   tools/fuzz.sh --keep    put a small set of inputs that covers as much into tests/fuzz/corpus
# A finding is mended, and goes into tests/fuzz/found/TARGET under a name that says what it was: ctest runs both.
# What was found grows in build-fuzz/fuzz from run to run: inputs, findings, executions so far.
set -eu
cd "$(dirname "$0")/.."
minutes=1 until=0 jobs=$(nproc) keep=
while [ $# -gt 0 ]; do
    case $1 in
    -m) minutes=$2 && shift 2 ;;
    -u) until=$2 && shift 2 ;;
    -j) jobs=$2 && shift 2 ;;
    --keep) keep=yes && shift ;;
    -*) sed -n '2,10s/^# *//p' "$0" >&2 && exit 2 ;;
    *) break ;;
    esac
done
build=${MOBILEVLM_FUZZ_BUILD:-build-fuzz}
mkdir -p "$build"
{ cmake --preset fuzz -B "$build" && cmake --build "$build" -j "$(nproc)" --target fuzz; } >"$build/build.log" 2>&1 ||
    { cat "$build/build.log" && exit 1; }
build=$(cd "$build" && pwd)
work=$build/fuzz
[ $# -gt 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/fuzz_//; s/\.c$//')
mkdir -p "$work"

# The most bytes of an input: models' and checkpoints' directories are long, what a user types is short.
length_of() {
    case $1 in
    model | config | zip | safetensors | pickle | index) echo 32768 ;;
    *) echo 8192 ;;
    esac
}

# What may be kept of a target in the repository, in bytes: two megabytes in all.
room_of() {
    case $1 in
    model) echo 500000 ;;
    config | zip) echo 300000 ;;
    *) echo 80000 ;;
    esac
}

if [ "$keep" ]; then
    for target; do
        new=$work/kept/$target
        rm -rf "$new" && mkdir -p "$new" "$work/corpus/$target" "$work/findings/$target" "tests/fuzz/corpus/$target"
        # edges alone: how often each is passed would keep ten times as much
        "$build/tests/fuzz/fuzz_$target" -set_cover_merge=1 -use_counters=0 -use_cmp=0 -max_len="$(length_of "$target")" "$new" \
            "tests/fuzz/corpus/$target" "$work/corpus/$target" -artifact_prefix="$work/findings/$target/" \
            >"$work/$target.merge.log" 2>&1 || { tail -20 "$work/$target.merge.log" && exit 1; }
        [ -z "$(ls "$work/findings/$target")" ] || { echo "fuzz: findings in $work/findings/$target" >&2 && exit 1; }
        (cd "$new" && ls -lSr | awk -v room="$(room_of "$target")" 'NF > 8 && (n += $5) > room {print $9}' | xargs -r rm --)
        rm -rf "tests/fuzz/corpus/$target" && cp -R "$new" "tests/fuzz/corpus/$target"
        printf '%-14s %5d inputs, %4d KB\n' "$target" "$(ls "$new" | wc -l)" "$(du -sk --apparent-size "$new" | cut -f1)"
    done
    exit
fi

# One target for some time; its log says how many inputs were executed, even after a finding.
cat >"$work/run.sh" <<'END'
target=$1 work=$2 program=$3 kept=$4 seconds=$5 length=$6
mkdir -p "$work/corpus/$target" "$work/findings/$target"
timeout -k 10 $((seconds + 120)) nice "$program" "$work/corpus/$target" "$kept" -max_total_time="$seconds" -max_len="$length" \
    -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$work/findings/$target/" -print_final_stats=1 \
    >"$work/$target.log" 2>&1
END

total() {
    cat "$work"/*.executions 2>/dev/null | awk '{n += $1} END {printf "%d", n}'
}

failed=0
seconds=$(awk "BEGIN {printf \"%d\", 60 * $minutes}")
while :; do
    for target; do
        mkdir -p "tests/fuzz/corpus/$target"
        echo "$target $work $build/tests/fuzz/fuzz_$target tests/fuzz/corpus/$target $seconds $(length_of "$target")"
    done | xargs -P "$jobs" -L 1 sh "$work/run.sh" || failed=1
    printf '%-14s %12s %10s %8s %8s\n' target executions "in all" edges findings
    for target; do
        log=$work/$target.log
        n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo $((${n:-0} + $(cat "$work/$target.executions" 2>/dev/null || echo 0))) >"$work/$target.executions.new"
        mv "$work/$target.executions.new" "$work/$target.executions"
        findings=$(ls "$work/findings/$target" | wc -l)
        [ "$findings" = 0 ] || failed=1
        printf '%-14s %12d %10d %8d %8d\n' "$target" "${n:-0}" "$(cat "$work/$target.executions")" \
            "$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1 | grep . || echo 0)" "$findings"
    done
    echo "$(total) executions in all"
    [ "$failed" = 0 ] && [ "$(total)" -lt "$until" ] || break
done
[ "$failed" = 0 ] || { echo "fuzz: findings in $work/findings, what they are in $work/*.log" >&2 && exit 1; }
