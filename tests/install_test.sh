#!/bin/sh
# What cmake --install leaves: programs, header, library with its pkg-config file, manual pages, completions.
#   tests/install_test.sh BUILD COMPILER [FLAG...]
set -eu
build=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
    echo "install_test: $1" >&2
    exit 1
}

cmake --install "$build" --prefix "$folder" >"$folder/log" || fail "$(cat "$folder/log")"
"$folder/bin/mobilevlm" --version >"$folder/version"

# A program of somebody else's, by pkg-config.
cat >"$folder/main.c" <<'END'
#include <mobilevlm.h>
#include <stdio.h>
int main(void)
{
    mvlm_model *model;
    mvlm_error error;
    return mvlm_model_open("none.bin", NULL, &model, &error) == MVLM_BAD_MODEL ? puts(error.message) < 0 : 1;
}
END
export PKG_CONFIG_PATH="$(dirname "$(find "$folder" -name mobilevlm.pc)")"
[ "$(pkg-config --modversion mobilevlm)" = "$(sed 's/[^0-9.]//g' "$folder/version")" ] || fail "another version"
"$@" "$folder/main.c" -o "$folder/main" $(pkg-config --cflags --libs mobilevlm) || fail "cannot be linked"
"$folder/main" | grep -q "none.bin" || fail "the library does not answer"

# Manual pages name every command; nothing in them is unknown to roff, where that is installed.
for command in $("$folder/bin/mobilevlm" help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    grep -q "^.SS $command\$" "$folder/share/man/man1/mobilevlm.1" || fail "the manual lacks $command"
done
for page in mobilevlm mobilevlm-convert; do
    if command -v groff >/dev/null; then
        groff -man -ww -Tutf8 "$folder/share/man/man1/$page.1" 2>&1 >/dev/null | grep . && fail "$page.1"
    fi
    if command -v zsh >/dev/null; then
        zsh -n "$folder/share/zsh/site-functions/_$page" || fail "_$page"
    fi
done

# Completion: words typed so far, and what may follow.
command -v bash >/dev/null || exit 0
complete() {
    said=$(bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mobilevlm; echo "${COMPREPLY[*]}"' \
        "$folder/share/bash-completion/completions/mobilevlm" "$@")
    [ "$said" = "$wanted" ] || fail "$*: completed by \"$said\", expected \"$wanted\""
}
wanted="bench batch" complete mobilevlm b
wanted="json jsonl" complete mobilevlm bench -o j
wanted="" complete mobilevlm batch -o j
wanted="auto f32 f16 q8" complete mobilevlm -m model.bin --kv-type ""
wanted="--sidecar --sidecar-dir" complete mobilevlm batch --si
