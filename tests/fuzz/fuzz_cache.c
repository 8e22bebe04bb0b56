/* An entry of the folder of pictures' rows: what is damaged there is as good as none. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "image_cache.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char digest[] = "0123456789abcdef0123456789abcdef";
    static const uint8_t rows[64] = {1, 2, 3};
    const struct cache_key key = {digest, digest, NULL, 0};
    static char folder[128], name[300];
    struct image_cache cache;
    mvlm_error error = {0};
    uint8_t read[64];
    snprintf(folder, sizeof folder, "%s/cache", fuzz_folder());
    if (!fuzz_outcome(image_cache_open(&cache, folder, 1 << 16, &error), &error))
        return 0;
    if (!*name) { /* how is the entry called? */
        image_cache_write(&cache, &key, rows, sizeof rows);
        DIR *entries = opendir(folder);
        for (const struct dirent *entry; entries && (entry = readdir(entries));)
            if (entry->d_name[0] != '.')
                snprintf(name, sizeof name, "cache/%s", entry->d_name);
        closedir(entries);
    }
    fuzz_file(name, bytes, n);
    image_cache_read(&cache, &key, read, sizeof read);
    image_cache_write(&cache, &key, rows, sizeof rows);
    fuzz_check(image_cache_read(&cache, &key, read, sizeof read) &&
               memcmp(read, rows, sizeof rows) == 0);
    image_cache_close(&cache);
    return 0;
}
