#!/bin/sh
# The first command: installs what is missing, builds, converts a shipped checkpoint and asks it about a shipped picture.
#   tools/demo.sh                          the shipped model and picture, and whether the answer is the reference's
#   tools/demo.sh PICTURE "QUESTION"       another picture, another question
# Until the trained model ships, the model is a golden case: the published architecture in small, with random weights. Its
# answer makes no sense, but it is the answer: the same that the published libraries give.
set -eu
[ $# -eq 0 ] || [ $# -eq 2 ] || { echo "usage: tools/demo.sh [PICTURE \"QUESTION\"]" >&2; exit 2; }
case ${1:-/} in /*) picture=${1:-} ;; *) picture=$PWD/$1 ;; esac
cd "$(dirname "$0")/.."
case=tests/golden/cases/v2
picture=${picture:-tests/golden/images/portrait.png}
question=${2:-How many cats are there?}

sh tools/setup.sh
mkdir -p build
{ cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DMOBILEVLM_TESTS=OFF && cmake --build build -j "$(nproc)"; } \
    >build/build.log 2>&1 || { cat build/build.log >&2; exit 1; }
model=build/demo.bin
build/mobilevlm-convert "$case/checkpoint" -o "$model" --type f32 --force --quiet

echo "model:    $case, the published architecture in small with random weights (it does not see, it only computes)"
echo "picture:  $picture"
echo "question: $question"
printf 'answer:   '
build/mobilevlm -m "$model" -i "$picture" -p "$question" -n 24
[ $# -eq 0 ] || exit 0

build/mobilevlm trace -m "$model" -i "$picture" -p "$question" -n 24 -o build/demo >/dev/null
ours=$(od -An -v -t d4 -j 128 build/demo/generated_ids.npy | tr -s ' \n' ' ')
reference=$(sed -n '/"generated_ids"/,/\]/p' "$case/expected/case.json" | grep -o '[0-9][0-9]*' | tr '\n' ' ')
# shellcheck disable=SC2086 # compared number by number
if [ "$(echo $ours)" = "$(echo $reference)" ]; then
    echo "reference: the same $(echo $reference | wc -w) tokens as the published libraries give"
else
    echo "reference: DIFFERENT tokens: ours $ours, the published libraries' $reference"
    exit 1
fi
