/* end record (-> ZIP64 locator -> ZIP64 end record) -> central directory -> local headers ->
 * records. Layouts: PKWARE APPNOTE 6.3, sections 4.3.7 to 4.3.16; extra field 0x0001:
 * section 4.5.3. */
#include "zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

enum {
    LOCAL = 0x04034b50,
    CENTRAL = 0x02014b50,
    END = 0x06054b50,
    END64 = 0x06064b50,
    LOCATOR = 0x07064b50,
    LOCAL_SIZE = 30,
    CENTRAL_SIZE = 46,
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    MAX_COMMENT = 0xffff,
    MAX_RECORD_NAME = 512,
    MAX_DIRECTORY = 100000000,
    ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13, /* plain, strong, and masked local headers */
    EXTRA_ZIP64 = 0x0001,
};

struct directory {
    uint64_t offset, n_bytes, n_records;
    uint64_t end; /* where the end records begin */
};

/* Finds the end record, which a comment may follow up to the file's last byte. */
static mvlm_status find_end(const struct source_file *file, uint64_t *at, uint8_t end[END_SIZE],
                            mvlm_error *error)
{
    const uint64_t n =
        file->n_bytes < END_SIZE + MAX_COMMENT ? file->n_bytes : END_SIZE + MAX_COMMENT;
    const uint64_t start = file->n_bytes - n;
    uint8_t *tail;
    TRY(source_file_load(file, start, n, n, "end", &tail, error));
    bool found = false;
    for (uint64_t back = END_SIZE; back <= n && !found; back++) {
        const uint8_t *const here = tail + n - back;
        found = load_u32(here) == END && load_u16(here + 20) == back - END_SIZE;
        if (found) {
            *at = file->n_bytes - back;
            memcpy(end, here, END_SIZE);
        }
    }
    free(tail);
    return found ? MVLM_OK
                 : source_file_fail(file, error,
                                    "no end record of a zip archive: truncated, or not "
                                    "a file of torch.save");
}

/* Replaces what the end record says when a ZIP64 locator stands before it. */
static mvlm_status read_end64(const struct source_file *file, struct directory *directory,
                              mvlm_error *error)
{
    uint8_t locator[LOCATOR_SIZE], end[END64_SIZE];
    if (directory->end < LOCATOR_SIZE)
        return MVLM_OK;
    const uint64_t limit = directory->end - LOCATOR_SIZE;
    TRY(source_file_read(file, limit, locator, sizeof locator, error));
    if (load_u32(locator) != LOCATOR)
        return MVLM_OK;
    const uint64_t at = load_u64(locator + 8);
    if (limit < END64_SIZE || at > limit - END64_SIZE)
        return source_file_fail(file, error, "zip: ZIP64 end record at %llu, outside of the file",
                                (unsigned long long)at);
    TRY(source_file_read(file, at, end, sizeof end, error));
    if (load_u32(end) != END64)
        return source_file_fail(file, error, "zip: no ZIP64 end record at %llu",
                                (unsigned long long)at);
    if (load_u32(locator + 4) != 0 || load_u32(end + 16) != 0 || load_u32(end + 20) != 0 ||
        load_u64(end + 24) != load_u64(end + 32))
        return source_file_fail(file, error, "zip: archive of several parts");
    *directory = (struct directory){.n_records = load_u64(end + 32),
                                    .n_bytes = load_u64(end + 40),
                                    .offset = load_u64(end + 48),
                                    .end = at};
    return MVLM_OK;
}

static mvlm_status read_end(const struct source_file *file, struct directory *directory,
                            mvlm_error *error)
{
    uint8_t end[END_SIZE] = {0};
    uint64_t at = 0;
    TRY(find_end(file, &at, end, error));
    *directory = (struct directory){.n_records = load_u16(end + 10),
                                    .n_bytes = load_u32(end + 12),
                                    .offset = load_u32(end + 16),
                                    .end = at};
    TRY(read_end64(file, directory, error));
    /* Disk numbers are 0, or all ones when the ZIP64 record holds them. */
    if (directory->end == at && (load_u32(end + 4) != 0 || load_u16(end + 8) != load_u16(end + 10)))
        return source_file_fail(file, error, "zip: archive of several parts");
    if (directory->n_bytes > directory->end ||
        directory->offset > directory->end - directory->n_bytes)
        return source_file_fail(
            file, error, "zip: directory of %llu bytes at %llu, outside of the file",
            (unsigned long long)directory->n_bytes, (unsigned long long)directory->offset);
    if (directory->n_records > directory->n_bytes / CENTRAL_SIZE)
        return source_file_fail(file, error, "zip: %llu records in a directory of %llu bytes",
                                (unsigned long long)directory->n_records,
                                (unsigned long long)directory->n_bytes);
    return MVLM_OK;
}

/* The ZIP64 extra field holds, in this order, those values whose 32 bits are all ones. */
static bool read_extra(const uint8_t *extra, size_t n, uint64_t *values[3])
{
    const uint8_t *field = NULL;
    size_t size = 0;
    while (n >= 4 && !field) {
        const size_t length = load_u16(extra + 2);
        if (length > n - 4)
            return false;
        if (load_u16(extra) == EXTRA_ZIP64) {
            field = extra + 4;
            size = length;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    for (int i = 0; i < 3; i++) {
        if (*values[i] != UINT32_MAX)
            continue;
        if (size < 8)
            return false;
        *values[i] = load_u64(field);
        field += 8;
        size -= 8;
    }
    return true;
}

/* One entry of the central directory; *used is its length. */
static mvlm_status read_central(const struct source_file *file, const uint8_t *entry, size_t n,
                                struct zip_record *record, size_t *used, mvlm_error *error)
{
    char text[QUOTE_SIZE];
    if (n < CENTRAL_SIZE || load_u32(entry) != CENTRAL)
        return source_file_fail(file, error, "zip: broken entry in the directory");
    const size_t name_length = load_u16(entry + 28), extra_length = load_u16(entry + 30);
    *used = CENTRAL_SIZE + name_length + extra_length + load_u16(entry + 32);
    if (*used > n)
        return source_file_fail(file, error, "zip: entry reaches beyond the directory");
    *record =
        (struct zip_record){.name = (const char *)entry + CENTRAL_SIZE, .name_length = name_length};
    quote(text, record->name, name_length);
    if (name_length > MAX_RECORD_NAME)
        return source_file_fail(file, error, "record '%s': name of %zu bytes, at most %d", text,
                                name_length, MAX_RECORD_NAME);
    if (load_u16(entry + 8) & ENCRYPTED)
        return source_file_fail(file, error, "record '%s' is encrypted", text);
    if (load_u16(entry + 10) != 0)
        return source_file_fail(file, error,
                                "record '%s' is compressed (method %d), expected stored", text,
                                load_u16(entry + 10));
    uint64_t stored = load_u32(entry + 20);
    record->n_bytes = load_u32(entry + 24);
    record->header = load_u32(entry + 42);
    uint64_t *values[] = {&record->n_bytes, &stored, &record->header};
    if (!read_extra(entry + CENTRAL_SIZE + name_length, extra_length, values))
        return source_file_fail(file, error, "record '%s': broken extra field", text);
    if (stored != record->n_bytes)
        return source_file_fail(file, error, "record '%s': %llu bytes stored, expected %llu", text,
                                (unsigned long long)stored, (unsigned long long)record->n_bytes);
    return MVLM_OK;
}

/* The data begins behind the local header, whose name and extra field have their own lengths. */
static mvlm_status read_local(const struct source_file *file, const struct directory *directory,
                              struct zip_record *record, mvlm_error *error)
{
    uint8_t header[LOCAL_SIZE + MAX_RECORD_NAME];
    char text[QUOTE_SIZE];
    quote(text, record->name, record->name_length);
    const size_t n = LOCAL_SIZE + record->name_length;
    if (n > directory->offset || record->header > directory->offset - n)
        return source_file_fail(file, error, "record '%s': header at %llu, outside of the file",
                                text, (unsigned long long)record->header);
    TRY(source_file_read(file, record->header, header, n, error));
    if (load_u32(header) != LOCAL || load_u16(header + 26) != record->name_length ||
        memcmp(header + LOCAL_SIZE, record->name, record->name_length) != 0)
        return source_file_fail(file, error, "record '%s': no header of that name at %llu", text,
                                (unsigned long long)record->header);
    if (load_u16(header + 6) & ENCRYPTED || load_u16(header + 8) != 0)
        return source_file_fail(file, error,
                                "record '%s': compressed or encrypted by its own header", text);
    record->offset = record->header + n + load_u16(header + 28);
    if (record->offset > directory->offset || record->n_bytes > directory->offset - record->offset)
        return source_file_fail(
            file, error, "record '%s': %llu bytes at %llu reach into the directory", text,
            (unsigned long long)record->n_bytes, (unsigned long long)record->offset);
    return MVLM_OK;
}

static int by_header(const void *left, const void *right)
{
    const struct zip_record *const a = left, *const b = right;
    return (a->header > b->header) - (a->header < b->header);
}

static int by_name(const void *left, const void *right)
{
    const struct zip_record *const a = left, *const b = right;
    const size_t n = a->name_length < b->name_length ? a->name_length : b->name_length;
    const int order = memcmp(a->name, b->name, n);
    return order ? order : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

/* No record may reach into another, no name come twice; leaves the records sorted by name. */
static mvlm_status check_records(const struct source_file *file, struct zip *zip, mvlm_error *error)
{
    struct zip_record *const records = zip->records;
    char text[QUOTE_SIZE], other[QUOTE_SIZE];
    qsort(records, zip->n_records, sizeof *records, by_header);
    for (size_t i = 1; i < zip->n_records; i++)
        if (records[i].header < records[i - 1].offset + records[i - 1].n_bytes)
            return source_file_fail(file, error, "record '%s' overlaps record '%s'",
                                    quote(text, records[i].name, records[i].name_length),
                                    quote(other, records[i - 1].name, records[i - 1].name_length));
    qsort(records, zip->n_records, sizeof *records, by_name);
    for (size_t i = 1; i < zip->n_records; i++)
        if (by_name(&records[i - 1], &records[i]) == 0)
            return source_file_fail(file, error, "record '%s' is there twice",
                                    quote(text, records[i].name, records[i].name_length));
    return MVLM_OK;
}

static mvlm_status read_records(const struct source_file *file, const struct directory *directory,
                                struct zip *zip, mvlm_error *error)
{
    TRY(source_file_load(file, directory->offset, directory->n_bytes, MAX_DIRECTORY,
                         "zip directory", &zip->directory, error));
    const size_t n = (size_t)directory->n_records;
    zip->records = calloc(n ? n : 1, sizeof *zip->records);
    if (!zip->records)
        return fail_no_memory(error, "zip records", n * sizeof *zip->records);
    size_t at = 0;
    for (; zip->n_records < n; zip->n_records++) {
        struct zip_record *const record = &zip->records[zip->n_records];
        size_t used = 0;
        TRY(read_central(file, zip->directory + at, (size_t)directory->n_bytes - at, record, &used,
                         error));
        TRY(read_local(file, directory, record, error));
        at += used;
    }
    if (at != directory->n_bytes)
        return source_file_fail(file, error,
                                "zip: directory of %llu bytes, its %zu records need %zu",
                                (unsigned long long)directory->n_bytes, n, at);
    return check_records(file, zip, error);
}

mvlm_status zip_open(const struct source_file *file, struct zip *zip, mvlm_error *error)
{
    struct directory directory;
    *zip = (struct zip){0};
    TRY(read_end(file, &directory, error));
    const mvlm_status status = read_records(file, &directory, zip, error);
    if (status != MVLM_OK)
        zip_close(zip);
    return status;
}

void zip_close(struct zip *zip)
{
    free(zip->directory);
    free(zip->records);
    *zip = (struct zip){0};
}

const struct zip_record *zip_find(const struct zip *zip, const char *name, size_t name_length)
{
    const struct zip_record key = {.name = name, .name_length = name_length};
    return bsearch(&key, zip->records, zip->n_records, sizeof key, by_name);
}
