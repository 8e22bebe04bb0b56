/* A pickle, in an archive that is always good, with four storages of 1 KB: keys 0 to 3. */
#include <string.h>

#include "fuzz.h"
#include "read_all.h"

struct record {
    const char *name;
    const void *data;
    size_t n;
};

static uint8_t archive[1 << 20];

static void put(uint8_t **at, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        *(*at)++ = i < 8 ? (uint8_t)(value >> 8 * i) : 0;
}

static void put_bytes(uint8_t **at, const void *bytes, size_t n)
{
    memcpy(*at, bytes, n);
    *at += n;
}

/* A ZIP of stored records (PKWARE APPNOTE 4.3): local headers with data, directory, end record. */
static size_t build(const struct record *records, size_t n)
{
    uint8_t *at = archive;
    size_t offsets[8];
    for (size_t i = 0; i < n; i++) {
        offsets[i] = (size_t)(at - archive);
        put(&at, 0x04034b50, 4);
        put(&at, 0, 14); /* version, flags, method, time, date, checksum: none */
        put(&at, records[i].n, 4);
        put(&at, records[i].n, 4);
        put(&at, strlen(records[i].name), 2);
        put(&at, 0, 2);
        put_bytes(&at, records[i].name, strlen(records[i].name));
        put_bytes(&at, records[i].data, records[i].n);
    }
    const size_t directory = (size_t)(at - archive);
    for (size_t i = 0; i < n; i++) {
        put(&at, 0x02014b50, 4);
        put(&at, 0, 16);
        put(&at, records[i].n, 4);
        put(&at, records[i].n, 4);
        put(&at, strlen(records[i].name), 2);
        put(&at, 0, 12);
        put(&at, offsets[i], 4);
        put_bytes(&at, records[i].name, strlen(records[i].name));
    }
    const size_t end = (size_t)(at - archive);
    put(&at, 0x06054b50, 4);
    put(&at, 0, 4);
    put(&at, n, 2);
    put(&at, n, 2);
    put(&at, end - directory, 4);
    put(&at, directory, 4);
    put(&at, 0, 2);
    return (size_t)(at - archive);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint8_t storage[1024];
    const struct record records[] = {
        {"archive/data.pkl", bytes, n},    {"archive/byteorder", "little", 6},
        {"archive/data/0", storage, 1024}, {"archive/data/1", storage, 1024},
        {"archive/data/2", storage, 1024}, {"archive/data/3", storage, 1024},
        {"archive/version", "3\n", 2},
    };
    if (n == 0 || n > sizeof archive / 2)
        return 0;
    fuzz_file("pytorch_model.bin", archive, build(records, sizeof records / sizeof *records));
    read_checkpoint("pytorch_model.bin");
    return 0;
}
