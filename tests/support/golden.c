#include "golden.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "convert.h"

char *path_of(const char *folder, const char *a, const char *b)
{
    char *path;
    assert_true(asprintf(&path, "%s/%s%s%s", folder, a, b ? "/" : "", b ? b : "") > 0);
    return path;
}

bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *file_load(const char *path, size_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: cannot be opened", path);
    fseek(file, 0, SEEK_END);
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*n_bytes + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n_bytes, file), *n_bytes);
    bytes[*n_bytes] = 0;
    fclose(file);
    return bytes;
}

void file_save(const char *path, const void *bytes, size_t n_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

/* The numbers between the parentheses of 'shape': (3, 112, 112). */
static void read_shape(struct array *array, const char *header)
{
    const char *at = strchr(strstr(header, "'shape'"), '(') + 1;
    array->n = 1;
    while (*at != ')') {
        char *end;
        const size_t size = strtoul(at, &end, 10);
        if (end != at) {
            array->shape[array->n_dims++] = size;
            array->n *= size;
        }
        at = end + strspn(end, ", ");
    }
}

/* Where the i-th value in C order lies in a file in Fortran's order. */
static size_t column_first_index(const struct array *array, size_t i)
{
    size_t index = 0, left = array->n;
    for (int d = array->n_dims - 1; d >= 0; d--) {
        left /= array->shape[d];
        index += i % array->shape[d] * left;
        i /= array->shape[d];
    }
    return index;
}

void array_load(struct array *array, const char *path)
{
    size_t n_bytes;
    char *bytes = file_load(path, &n_bytes);
    assert_true(n_bytes > 10 && memcmp(bytes, "\x93NUMPY", 6) == 0);
    const size_t header = 10 + (unsigned char)bytes[8] + 256u * (unsigned char)bytes[9];
    assert_true(header < n_bytes || header == n_bytes);
    char *text = strndup(bytes + 10, header - 10);
    *array = (struct array){.type = strstr(text, "'<f4'")   ? 'f'
                                    : strstr(text, "'<i4'") ? 'i'
                                                            : '?'};
    const bool columns_first = strstr(text, "'fortran_order': True");
    assert_true(array->type != '?');
    read_shape(array, text);
    free(text);
    assert_int_equal(n_bytes - header, 4 * array->n);
    uint32_t *values = malloc(4 * array->n + 1);
    for (size_t i = 0; i < array->n; i++)
        memcpy(&values[i], bytes + header + 4 * (columns_first ? column_first_index(array, i) : i),
               4);
    free(bytes);
    if (array->type == 'f')
        array->floats = (float *)(void *)values;
    else
        array->integers = (int32_t *)(void *)values;
}

void array_free(struct array *array)
{
    free(array->floats);
    free(array->integers);
    *array = (struct array){0};
}

json_t *json_load_test(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!json)
        fail_msg("%s: %s", path, error.text);
    return json;
}

size_t for_each_case(const char *cases, void (*each)(const char *, const char *, void *),
                     void *user)
{
    struct dirent **entries;
    const int n = scandir(cases, &entries, NULL, alphasort);
    size_t n_cases = 0;
    for (int i = 0; i < n; i++) {
        char *folder = path_of(cases, entries[i]->d_name, NULL);
        char *record = path_of(folder, "expected", "case.json");
        if (entries[i]->d_name[0] != '.' && path_exists(record)) {
            each(folder, entries[i]->d_name, user);
            n_cases++;
        }
        free(record);
        free(folder);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return n_cases;
}

void convert_test(const char *checkpoint, const char *path, const char *type)
{
    const struct convert_options options = {
        .type = strcmp(type, "f16") == 0 ? TENSOR_F16 : TENSOR_F32, .force = true};
    mvlm_error error = {0};
    if (convert(checkpoint, path, &options, NULL, &error) != MVLM_OK)
        fail_msg("%s", error.message);
}

double assert_close(const char *what, const float *a, const float *b, size_t n)
{
    double most = 0, largest = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= largest)) {
            largest = difference;
            at = i;
        }
        if (fabs((double)b[i]) > most)
            most = fabs((double)b[i]);
    }
    if (!(largest <= 1e-4 * most))
        fail_msg("%s: value %zu is %.9g, expected %.9g; the largest magnitude is %g", what, at,
                 (double)a[at], (double)b[at], most);
    return most > 0 ? largest / most : 0;
}
