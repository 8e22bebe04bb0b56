#include "fuzz.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert.h"
#include "schema.h"

void fuzz_check_(bool holds, const char *what, const char *file, int line)
{
    if (holds)
        return;
    fprintf(stderr, "%s:%d: %s does not hold\n", file, line, what);
    abort();
}

bool fuzz_outcome(mvlm_status status, const mvlm_error *error)
{
    if (status == MVLM_OK)
        return true;
    fuzz_check(error->status == status);
    fuzz_check(*error->message);
    for (const char *at = error->message; *at; at++)
        fuzz_check(!iscntrl((unsigned char)*at));
    return false;
}

/* ---- Files ------------------------------------------------------------------------------ */

static char folder[64];

static void remove_folder(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        fprintf(stderr, "%s is left behind\n", folder);
}

const char *fuzz_folder(void)
{
    if (!*folder) {
        const bool in_memory = access("/dev/shm", W_OK) == 0;
        snprintf(folder, sizeof folder, "%s/fuzz.XXXXXX", in_memory ? "/dev/shm" : "/tmp");
        fuzz_check(mkdtemp(folder) != NULL);
        atexit(remove_folder);
    }
    return folder;
}

const char *fuzz_file(const char *name, const void *bytes, size_t n)
{
    static char path[192];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    if (!bytes) {
        unlink(path);
        return path;
    }
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fuzz_check(file >= 0 && write(file, bytes, n) == (ssize_t)n);
    close(file);
    return path;
}

size_t fuzz_split(const uint8_t *bytes, size_t n, struct fuzz_part *parts, size_t most)
{
    static const char mark[] = "\n%%%%\n";
    size_t n_parts = 0;
    while (n_parts + 1 < most) {
        const uint8_t *end = memmem(bytes, n, mark, sizeof mark - 1);
        if (!end)
            break;
        parts[n_parts++] = (struct fuzz_part){bytes, (size_t)(end - bytes)};
        n -= (size_t)(end - bytes) + sizeof mark - 1;
        bytes = end + sizeof mark - 1;
    }
    parts[n_parts++] = (struct fuzz_part){bytes, n};
    return n_parts;
}

char *fuzz_text(const uint8_t *bytes, size_t n)
{
    char *text = malloc(n + 1);
    fuzz_check(text != NULL);
    if (n)
        memcpy(text, bytes, n);
    text[n] = 0;
    return text;
}

/* ---- Models ----------------------------------------------------------------------------- */

enum { MOST_MODELS = 4 };
static mvlm_model *models[MOST_MODELS];
static size_t n_models;

static void close_models(void)
{
    while (n_models)
        mvlm_model_close(models[--n_models]);
}

mvlm_model *fuzz_golden_model(const char *name)
{
    char checkpoint[256], path[96];
    mvlm_error error = {0};
    struct convert_report report;
    const struct convert_options how = {.types = {TENSOR_F32, TENSOR_F32, TENSOR_F32},
                                        .n_threads = 1};
    fuzz_check(n_models < MOST_MODELS);
    if (n_models == 0)
        atexit(close_models);
    snprintf(checkpoint, sizeof checkpoint, SOURCE_DIR "/tests/golden/cases/%s/checkpoint", name);
    snprintf(path, sizeof path, "%s/%s.bin", fuzz_folder(), name);
    fuzz_check(convert(checkpoint, path, &how, &report, &error) == MVLM_OK);
    fuzz_check(mvlm_model_open(path, NULL, &models[n_models], &error) == MVLM_OK);
    return models[n_models++];
}
