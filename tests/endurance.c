/* Many answers of the demo model in one process: memory and file descriptors stay as they are.
 *
 *     endurance [ANSWERS]     default 300; prints memory at the first, the middle and the last, and ends with 1 when it grew */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mobilevlm.h"

#define IMAGES SOURCE_DIR "/tests/golden/images/"

/* All kinds of files, and some that are refused: nothing of those may stay either. */
static const char *const files[] = {
    SOURCE_DIR "/models/pictures/tiger.png",
    IMAGES "420.jpg",
    IMAGES "progressive.jpg",
    IMAGES "exif6.jpg",
    IMAGES "bmp8.bmp",
    IMAGES "double.png",
    IMAGES "palette.png",
    IMAGES "bad/wide-huffman.jpg",
    IMAGES "cmyk.jpg",
    SOURCE_DIR "/README.md",
};
static const char *const questions[] = {"What is this?", "What do you see?", "How many are there?"};
enum { N_FILES = sizeof files / sizeof *files, N_QUESTIONS = sizeof questions / sizeof *questions };

static mvlm_picture pictures[N_FILES];

static void load_pictures(void)
{
    for (size_t i = 0; i < N_FILES; i++) {
        FILE *file = fopen(files[i], "rb");
        char *bytes = malloc(1 << 20);
        if (bytes && file)
            pictures[i] = (mvlm_picture){files[i], bytes, fread(bytes, 1, 1 << 20, file)};
        if (file)
            fclose(file);
    }
}

static size_t resident_kilobytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*u %lu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static size_t open_descriptors(void)
{
    size_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        n++;
    if (folder)
        closedir(folder);
    return n;
}

/* Answer i; now and then in a session, and from a model, of its own. */
static mvlm_status answer(mvlm_model *model, mvlm_session *session, size_t i, mvlm_error *error)
{
    const mvlm_session_options options = {.n_threads = (int)(1 + i / 7 % 2), .keep_cache = i % 2};
    mvlm_model *own_model = NULL;
    mvlm_session *own = NULL;
    const mvlm_turn turn = {.question = questions[i / 3 % N_QUESTIONS]};
    const mvlm_question question = {.pictures = &pictures[i % N_FILES],
                                    .n_pictures = i % 11 != 0,
                                    .turns = &turn,
                                    .n_turns = 1,
                                    .max_tokens = 12};
    mvlm_status status = MVLM_OK;
    if (i % 13 == 0)
        status = mvlm_model_open(SOURCE_DIR "/models/tinyvlm-draw.bin", NULL, &own_model, error);
    if (status == MVLM_OK && i % 7 == 0)
        status = mvlm_session_open(own_model ? own_model : model, &options, &own, error);
    if (status == MVLM_OK)
        status = mvlm_ask(own ? own : session, &question, NULL, NULL, error);
    mvlm_session_close(own);
    mvlm_model_close(own_model);
    return status;
}

int main(int argc, char **argv)
{
    const size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 300, warm = n / 3 < 100 ? n / 3 : 100;
    const mvlm_session_options options = {.n_threads = 2};
    size_t memory[3] = {0}, descriptors[3] = {0}, n_refused = 0;
    mvlm_model *model;
    mvlm_session *session;
    mvlm_error error = {0};
    load_pictures();
    if (mvlm_model_open(SOURCE_DIR "/models/tinyvlm-draw.bin", NULL, &model, &error) != MVLM_OK ||
        mvlm_session_open(model, &options, &session, &error) != MVLM_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (size_t i = 0; i < n; i++) {
        const mvlm_status status = answer(model, session, i, &error);
        if (status != MVLM_OK && status != MVLM_BAD_PICTURE) {
            fprintf(stderr, "answer %zu: %s\n", i, error.message);
            return 1;
        }
        n_refused += status != MVLM_OK;
        for (int j = 0; j < 3; j++) /* the first once all that is kept is there */
            if (i == (j == 0 ? warm : j == 1 ? n / 2 : n - 1)) {
                memory[j] = resident_kilobytes();
                descriptors[j] = open_descriptors();
            }
    }
    mvlm_session_close(session);
    mvlm_model_close(model);
    for (size_t i = 0; i < N_FILES; i++)
        free((void *)(uintptr_t)pictures[i].bytes);
    printf("%zu answers, %zu of them refused: memory %zu, %zu, %zu KB, descriptors %zu, %zu, %zu "
           "(answer %zu, the middle, the last)\n",
           n, n_refused, memory[0], memory[1], memory[2], descriptors[0], descriptors[1],
           descriptors[2], warm);
    const size_t allowed = memory[0] + 1024; /* of what the allocator keeps in pieces */
    return n_refused == 0 || n_refused == n || memory[2] > allowed ||
           descriptors[2] != descriptors[0];
}
