#!/bin/sh
# Eight batches at once on two cores, each with less memory than the one before:
#   tests/hostile_load_test.sh PROGRAM [ROUNDS]
# Each is done, or ends with exit 5 (or 1, where it was pictures that found no memory) and whole records; then it goes on without
# a limit, and all its answers are those of a batch that nobody disturbed.
set -u
program=$1 rounds=${2:-1}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
complain() {
    echo "hostile_load_test: $1" >&2
    failed=1
}

# batch OUT OPTIONS...
batch() {
    out=$1
    shift
    "$program" batch -q -m models/tinyvlm-draw.bin -p "What is this?" -n 12 models/pictures/*.png tests/golden/images/*.jpg \
        -o "$work/$out" --sidecar txt --sidecar-dir "$work/$out.d" "$@"
}
# What was answered, by id.
answers() {
    sed -n 's/^{"text":\("[^"]*"\).*"id":\("[^"]*"\).*/\2 \1/p' "$1" | sort
}

batch undisturbed
[ $? -le 1 ] || complain "cannot run at all"
answers "$work/undisturbed" >"$work/expected"
[ -s "$work/expected" ] || complain "nothing was answered"
round=0
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    job=0
    for megabytes in 13 18 22 26 30 34 38 400; do
        job=$((job + 1))
        rm -rf "$work/$job" "$work/$job.d"
        (
            ulimit -v $(((megabytes + round % 17) * 1024))
            batch $job 2>"$work/$job.err"
            echo $? >"$work/$job.code"
        ) &
    done
    wait
    codes=
    for job in 1 2 3 4 5 6 7 8; do
        code=$(cat "$work/$job.code")
        codes="$codes $code"
        case $code in
        0 | 1 | 5) ;;
        *) complain "batch $job ended with $code: $(cat "$work/$job.err")" ;;
        esac
        [ "$code" != 1 ] || grep -q '"error"' "$work/$job" || complain "batch $job ended with 1, but no record says why"
        [ "$code" != 5 ] || [ -s "$work/$job.err" ] || complain "batch $job ended with 5 and said nothing"
        [ ! -s "$work/$job" ] || [ -z "$(tail -c 1 "$work/$job" | tr -d '\n')" ] || complain "batch $job left a torn record"
        [ -z "$(find "$work/$job.d" -name '*.part' 2>/dev/null)" ] || complain "batch $job left half a sidecar"
        batch $job --resume --retry-failed 2>"$work/$job.err"
        [ $? -le 1 ] || complain "batch $job does not go on: $(cat "$work/$job.err")"
        answers "$work/$job" | uniq >"$work/answers"
        cmp -s "$work/answers" "$work/expected" || complain "batch $job answers something else"
    done
    echo "round $round: eight batches ended with$codes, and went on"
done
exit $failed
