/* Runs a target on files, and on all files of folders: the kept corpus as a test, or a finding again. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static size_t n_run;

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    fuzz_check(file && fseek(file, 0, SEEK_END) == 0);
    const size_t n = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(n ? n : 1); /* exactly: a byte read behind them is seen */
    fuzz_check(bytes && fread(bytes, 1, n, file) == n);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, n);
    free(bytes);
    n_run++;
}

static void run_folder(const char *path)
{
    struct dirent **entries;
    const int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            run_file(name);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

int main(int argc, char **argv)
{
    struct stat about;
    for (int i = 1; i < argc; i++) {
        fuzz_check(stat(argv[i], &about) == 0);
        if (S_ISDIR(about.st_mode))
            run_folder(argv[i]);
        else
            run_file(argv[i]);
    }
    printf("%zu inputs\n", n_run);
    return n_run ? 0 : 1; /* a corpus that is not there tests nothing */
}
