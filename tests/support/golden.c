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

static void convert_merged(const char *checkpoint, const char *lora, const char *path,
                           const char *type)
{
    const enum tensor_type matrices = strcmp(type, "f16") == 0      ? TENSOR_F16
                                      : strcmp(type, "q8") == 0     ? TENSOR_Q8
                                      : strncmp(type, "q4", 2) == 0 ? TENSOR_Q4
                                                                    : TENSOR_F32;
    const enum tensor_type other = matrices == TENSOR_Q4 ? TENSOR_Q8 : matrices; /* as --type q4 */
    const struct convert_options options = {
        .types = {other, matrices, other},
        .lora = lora,
        .norm_balance = CONVERT_NORM_BALANCE,
        .calibration = strcmp(type, "q4-plain") == 0 ? 0 : CONVERT_CALIBRATION,
        .force = true};
    mvlm_error error = {0};
    if (convert(checkpoint, path, &options, NULL, &error) != MVLM_OK)
        fail_msg("%s", error.message);
}

void convert_test(const char *checkpoint, const char *path, const char *type)
{
    convert_merged(checkpoint, NULL, path, type);
}

void convert_case(const char *case_folder, const char *path, const char *type)
{
    char *checkpoint = path_of(case_folder, "checkpoint", NULL),
         *adapter = path_of(case_folder, "adapter", NULL);
    convert_merged(checkpoint, path_exists(adapter) ? adapter : NULL, path, type);
    free(checkpoint);
    free(adapter);
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

/* The ids of a text that lies beside the project's own cases, or beside the shared weights. */
static int32_t *ids_of(mvlm_model *model, const char *name, size_t *n_ids)
{
    size_t n_bytes;
    mvlm_error error;
    char *path = path_of(SOURCE_DIR "/tests/golden", name, NULL);
    if (!path_exists(path)) {
        free(path);
        path = path_of(SHARED_DIR "/weights", name, NULL);
    }
    char *text = file_load(path, &n_bytes);
    assert_int_equal(mvlm_tokenize(model, text, n_bytes, 0, NULL, 0, n_ids, &error), MVLM_OK);
    int32_t *ids = malloc(*n_ids * sizeof *ids);
    assert_non_null(ids);
    assert_int_equal(mvlm_tokenize(model, text, n_bytes, 0, ids, *n_ids, n_ids, &error), MVLM_OK);
    free(text);
    free(path);
    return ids;
}

double text_loss(mvlm_model *model, const json_t *perplexity)
{
    const char *name = json_string_value(json_object_get(perplexity, "text"));
    const size_t window = (size_t)json_integer_value(json_object_get(perplexity, "window"));
    const size_t windows = (size_t)json_integer_value(json_object_get(perplexity, "windows"));
    const size_t n = window - 1;
    size_t n_ids;
    mvlm_session *session;
    mvlm_error error;
    assert_true(name && n < window && windows > 0);
    int32_t *ids = ids_of(model, name, &n_ids), *piece = malloc(window * sizeof *piece);
    float *losses = malloc(window * sizeof *losses);
    double sum = 0;
    assert_true(piece && losses && windows * n <= n_ids);
    assert_int_equal(json_integer_value(json_object_get(perplexity, "tokens")), windows * n);
    assert_int_equal(mvlm_session_open(model, NULL, &session, &error), MVLM_OK);
    for (size_t w = 0; w < windows; w++) {
        piece[0] = 1;
        memcpy(piece + 1, ids + w * n, n * sizeof *ids);
        assert_int_equal(mvlm_score(session, piece, window, losses, &error), MVLM_OK);
        for (size_t i = 0; i < n; i++)
            sum += (double)losses[i];
    }
    mvlm_session_close(session);
    free(piece);
    free(losses);
    free(ids);
    return sum / (double)(windows * n);
}
