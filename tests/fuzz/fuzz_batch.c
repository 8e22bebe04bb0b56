/* A batch's files: the input's first byte says which. JSON lines of items, a list of names, or records to go on with, and
 * to merge. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "batch_items.h"
#include "batch_merge.h"
#include "batch_records.h"
#include "fuzz.h"

static void read_items(const struct values *values, const struct text_list *words)
{
    struct item_source source;
    struct item item;
    mvlm_error error = {0};
    if (fuzz_outcome(items_open(&source, values, words, &error), &error))
        while (items_next(&source, &item)) {
            fuzz_check(item.id != NULL);
            item_free(&item);
        }
    items_close(&source);
}

static void go_on(const struct values *values)
{
    static const char digest[] = "0123456789abcdef0123456789abcdef";
    struct records records;
    bool done;
    mvlm_error error = {0};
    if (fuzz_outcome(records_open(&records, values, digest, digest, &error), &error))
        fuzz_outcome(records_find(&records, values, "a", digest, digest, &done, &error), &error);
    records_close(&records, error.status, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    enum { LINES, LIST, NUL_LIST, RECORDS, MERGE, N_KINDS };
    char path[128], other[128], word[130];
    const char *items[1] = {word};
    struct text_list words = {0};
    struct values values = {.words = &words, .quiet = true};
    mvlm_error error = {0};
    if (n < 1)
        return 0;
    snprintf(other, sizeof other, "%s", fuzz_file("merged.jsonl", NULL, 0));
    snprintf(path, sizeof path, "%s", fuzz_file("batch", bytes + 1, n - 1));
    switch (bytes[0] % N_KINDS) {
    case LINES:
        values.jsonl_in = path;
        read_items(&values, &words);
        break;
    case LIST:
    case NUL_LIST:
        snprintf(word, sizeof word, "@%s", path);
        values.nul_list = bytes[0] % N_KINDS == NUL_LIST;
        values.sidecar = "txt";
        words = (struct text_list){items, 1};
        read_items(&values, &words);
        break;
    case RECORDS:
        values.output = path;
        values.resume = true;
        values.force = bytes[0] & 64;
        values.retry_failed = bytes[0] & 128;
        go_on(&values);
        break;
    default:
        snprintf(word, sizeof word, "%s", path);
        words = (struct text_list){items, 1};
        values.merge = other;
        values.force = bytes[0] & 64;
        const mvlm_status status = merge_records(&values, &error);
        if (status != SOME_FAILED)
            fuzz_outcome(status, &error);
    }
    return 0;
}
