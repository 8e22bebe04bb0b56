#!/bin/sh
# The first command: installs what is missing, builds, and asks the model that ships about a picture that ships.
#   tools/demo.sh                          two questions about models/pictures/dog-and-umbrella.png
#   tools/demo.sh PICTURE "QUESTION"       a picture and a question of yours
set -eu
[ $# -eq 0 ] || [ $# -eq 2 ] || { echo "usage: tools/demo.sh [PICTURE \"QUESTION\"]" >&2; exit 2; }
case ${1:-/} in /*) picture=${1:-} ;; *) picture=$PWD/$1 ;; esac
question=${2:-}
cd "$(dirname "$0")/.."
model=models/tinyvlm-draw.bin

sh tools/setup.sh
mkdir -p build
{ cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DMOBILEVLM_TESTS=OFF && cmake --build build -j "$(nproc)"; } \
    >build/build.log 2>&1 || { cat build/build.log >&2; exit 1; }

ask() {
    echo "question: $2"
    printf 'answer:   '
    build/mobilevlm -m "$model" -i "$1" -p "$2"
}
echo "model:    $model, trained on drawings (README.md says what it can do)"
if [ -n "$picture" ]; then
    echo "picture:  $picture"
    ask "$picture" "$question"
else
    picture=models/pictures/dog-and-umbrella.png
    echo "picture:  $picture"
    ask "$picture" "What is on the left?"
    ask "$picture" "What is on the right?"
fi
