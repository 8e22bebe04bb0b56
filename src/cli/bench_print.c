/* Results as a table for people (md), or as records for programs (json, jsonl, csv), printed as they
 * come. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* ---- Numbers ---------------------------------------------------------------------------- */

struct summary {
    double mean, median, deviation;
};

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_of(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/* Of n > 0 values, which are put in order. */
static struct summary summarize(double *values, size_t n)
{
    struct summary s = {.median = median_of(values, n)};
    for (size_t i = 0; i < n; i++)
        s.mean += values[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        s.deviation += (values[i] - s.mean) * (values[i] - s.mean);
    s.deviation = n > 1 ? sqrt(s.deviation / (double)(n - 1)) : 0;
    return s;
}

/* Everything that is said of a result. */
struct report {
    struct summary ns, rate; /* rate: tokens a second, where the result has tokens */
    double limit, share;     /* medians; NAN without */
};

static mvlm_status report_on(const struct result *r, struct report *report, mvlm_error *error)
{
    double *values = malloc((r->n + 1) * sizeof *values);
    if (!values)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu times", r->n);
    for (size_t i = 0; i < r->n; i++)
        values[i] = r->ns[i];
    report->ns = summarize(values, r->n);
    for (size_t i = 0; i < r->n; i++)
        values[i] = 1e9 * (double)r->n_tokens / r->ns[i];
    report->rate = summarize(values, r->n);
    for (size_t i = 0; i < r->n; i++)
        values[i] = r->limit_ns[i];
    report->limit = r->limited ? median_of(values, r->n) : NAN;
    for (size_t i = 0; i < r->n; i++)
        values[i] = r->limit_ns[i] / r->ns[i];
    report->share = r->limited ? median_of(values, r->n) : NAN;
    free(values);
    return MVLM_OK;
}

/* ---- Records ---------------------------------------------------------------------------- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *whole(double value)
{
    return json_integer((json_int_t)llround(value));
}

static json_t *samples(const struct result *r, bool rates)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n; i++)
        json_push(&list, rates ? number(1e9 * (double)r->n_tokens / r->ns[i]) : whole(r->ns[i]));
    return list;
}

static json_t *text_or_null(const char *text)
{
    return *text ? json_text(text) : json_null();
}

/* What holds for the whole run, named as llama-bench names it where it does. */
static json_t *settings_of(const struct bench *bench, const struct result *r)
{
    const struct machine *m = &bench->machine;
    const int *asked;
    const char *why;
    const size_t n_asked = asked_cores(&asked, &why);
    return json_pack(
        "{s:s, s:o, s:o, s:s, s:I, s:I, s:s, s:s, s:I, s:o, s:o, s:s, s:s, s:I, s:I, s:I, s:s}",
        "build_version", MVLM_VERSION, "cpu_info", text_or_null(m->cpu), "model_filename",
        json_text(bench->info.path), "model_type", bench->work.weight_type, "model_size",
        (json_int_t)bench->info.n_bytes, "model_n_params", (json_int_t)bench->work.n_parameters,
        "model_digest", bench->info.digest, "isa", bench->info.isa, "n_threads",
        (json_int_t)r->n_threads, "cores_asked", cores_json(asked, n_asked), "cores_granted",
        cores_json(m->cores, m->n_cores), "type_k", bench->work.kv_type, "type_v",
        bench->work.kv_type, "n_prompt", (json_int_t)r->n_prompt, "n_gen", (json_int_t)r->n_gen,
        "n_depth", (json_int_t)r->n_depth, "test_time", r->time);
}

/* Of one repetition. */
static double energy_of(const struct result *r)
{
    return r->joules / (double)r->n;
}

static double tokens_per_joule(const struct result *r)
{
    return (double)r->n_tokens / energy_of(r);
}

/* What the machine does not tell is no field, but of CSV, where every line has the same. */
static void set_sensors(json_t **record, const struct bench *bench, const struct result *r)
{
    const bool all = bench->values->bench_output == BENCH_CSV;
    const struct {
        const char *key;
        double value;
    } fields[] = {
        {"frequency_mhz_start", r->before.mhz},
        {"frequency_mhz_end", r->after.mhz},
        {"frequency_mhz_lowest", r->lowest.mhz},
        {"temperature_c_start", r->before.celsius},
        {"temperature_c_end", r->after.celsius},
        {"temperature_c_lowest", r->lowest.celsius},
        {"paused_s", bench->values->max_celsius > 0 ? r->paused_s : NAN},
        {"energy_j", energy_of(r)},
        {"tokens_per_joule", r->n_tokens ? tokens_per_joule(r) : NAN},
    };
    if (all || *bench->machine.governor)
        json_put(record, "governor", text_or_null(bench->machine.governor));
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (all || isfinite(fields[i].value))
            json_put(record, fields[i].key, number(fields[i].value));
}

/* One level, in this order; NULL without memory. */
static json_t *record_of(const struct bench *bench, const struct result *r,
                         const struct report *report)
{
    const bool tokens = r->n_tokens > 0;
    json_t *record = json_pack("{s:s}", "test", r->test), *settings = settings_of(bench, r);
    if (json_object_update(record, settings) != 0) {
        json_decref(record);
        record = NULL;
    }
    json_decref(settings);
    const struct {
        const char *key;
        json_t *value;
    } fields[] = {
        {"avg_ns", whole(report->ns.mean)},
        {"median_ns", whole(report->ns.median)},
        {"stddev_ns", whole(report->ns.deviation)},
        {"avg_ts", number(tokens ? report->rate.mean : NAN)},
        {"median_ts", number(tokens ? report->rate.median : NAN)},
        {"stddev_ts", number(tokens ? report->rate.deviation : NAN)},
        {"samples_ns", samples(r, false)},
        {"samples_ts", tokens ? samples(r, true) : json_null()},
        {"bytes_read", whole(r->bytes)},
        {"macs", whole(r->picture_macs + r->decoder_macs)},
        {"peak_rss_bytes", json_integer((json_int_t)r->peak_rss)},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        json_put(&record, fields[i].key, fields[i].value);
    set_sensors(&record, bench, r);
    if (bench->values->limits) {
        json_put(&record, "limit", number(report->limit));
        json_put(&record, "limited_by",
                 !r->limited ? json_null()
                             : json_string(r->limited_by_reading ? "reading" : "macs"));
        json_put(&record, "share", number(report->share));
    }
    if (bench->sustain_seconds > 0)
        json_put(&record, "elapsed_s", number(r->elapsed_s));
    return record;
}

/* A value as a field of CSV: in quotes, with those within doubled; lists have spaces between. */
static bool print_field(const json_t *value, FILE *out)
{
    char *dumped = json_written(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (!dumped)
        return false;
    const char *text = json_is_string(value) ? json_string_value(value) : dumped;
    fputc('"', out);
    for (const char *at = json_is_null(value) ? "" : text; *at; at++) {
        if (json_is_array(value) && strchr("[],", *at))
            continue;
        if (*at == '"')
            fputc('"', out);
        fputc(*at, out);
    }
    fputc('"', out);
    free(dumped);
    return true;
}

/* All fields but the samples; before the first record their names. */
static bool print_csv(const struct bench *bench, json_t *record, FILE *out)
{
    const char *key, *between = "";
    json_t *value;
    json_object_del(record, "samples_ns");
    json_object_del(record, "samples_ts");
    if (bench->n_printed == 0) {
        json_object_foreach(record, key, value)
        {
            fprintf(out, "%s%s", between, key);
            between = ",";
        }
        fputc('\n', out);
    }
    between = "";
    json_object_foreach(record, key, value)
    {
        fputs(between, out);
        if (!print_field(value, out))
            return false;
        between = ",";
    }
    fputc('\n', out);
    return true;
}

/* False without memory. */
static bool print_record(const struct bench *bench, json_t *record, FILE *out)
{
    const int format = bench->values->bench_output;
    if (format == BENCH_JSON && bench->n_printed)
        fputs(",\n", out);
    if (format == BENCH_CSV)
        return record && print_csv(bench, record, out);
    char *dumped =
        json_written(record, JSON_REAL_PRECISION(9) | (format == BENCH_JSON ? JSON_INDENT(2) : 0));
    if (dumped)
        fputs(dumped, out);
    free(dumped);
    if (format == BENCH_JSONL)
        fputc('\n', out);
    return dumped != NULL;
}

/* ---- The table -------------------------------------------------------------------------- */

struct column {
    const char *title;
    int width;
    bool left;
    enum { ALWAYS, WITH_LIMITS, SUSTAINED, WITH_ENERGY } when;
};

static const struct column columns[] = {
    {"model", 24, true, ALWAYS},         {"size", 10, false, ALWAYS},
    {"isa", 10, true, ALWAYS},           {"threads", 7, false, ALWAYS},
    {"s", 6, false, SUSTAINED},          {"test", 16, false, ALWAYS},
    {"ms", 19, false, ALWAYS},           {"t/s", 16, false, ALWAYS},
    {"limit ms", 9, false, WITH_LIMITS}, {"share", 7, false, WITH_LIMITS},
    {"J", 8, false, WITH_ENERGY},        {"t/J", 8, false, WITH_ENERGY},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static bool is_shown(const struct bench *bench, const struct column *column)
{
    return column->when == ALWAYS || (column->when == WITH_LIMITS && bench->values->limits) ||
           (column->when == SUSTAINED && bench->sustain_seconds > 0) ||
           (column->when == WITH_ENERGY && bench->tells_energy);
}

/* Characters of UTF-8. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

static void print_row(const struct bench *bench, const char *const cells[N_COLUMNS], FILE *out)
{
    for (size_t i = 0; i < N_COLUMNS; i++) {
        const int n = columns[i].width - width_of(cells[i]), space = n > 0 ? n : 0;
        if (is_shown(bench, &columns[i]))
            fprintf(out, "| %*s%s%*s ", columns[i].left ? 0 : space, "", cells[i],
                    columns[i].left ? space : 0, "");
    }
    fputs("|\n", out);
}

static void print_head(const struct bench *bench, FILE *out)
{
    static const char dashes[] = "------------------------";
    const char *titles[N_COLUMNS];
    for (size_t i = 0; i < N_COLUMNS; i++)
        titles[i] = columns[i].title;
    print_row(bench, titles, out);
    for (size_t i = 0; i < N_COLUMNS; i++)
        if (is_shown(bench, &columns[i]))
            fprintf(out, "| %.*s%c ", columns[i].width - 1, dashes, columns[i].left ? '-' : ':');
    fputs("|\n", out);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void print_table_row(const struct bench *bench, const struct result *r,
                            const struct report *report, FILE *out)
{
    enum { CELL = 64 };
    char cells[N_COLUMNS][CELL];
    const char *texts[N_COLUMNS];
    const double gigabytes = (double)bench->info.n_bytes / 0x1p30;
    for (size_t i = 0; i < N_COLUMNS; i++)
        texts[i] = cells[i];
    snprintf(cells[0], CELL, "%.40s %s", base_name(bench->info.path), bench->work.weight_type);
    if (gigabytes >= 1)
        snprintf(cells[1], CELL, "%.2f GiB", gigabytes);
    else
        snprintf(cells[1], CELL, "%.2f MiB", 1024 * gigabytes);
    snprintf(cells[2], CELL, "%s", bench->info.isa);
    snprintf(cells[3], CELL, "%zu", r->n_threads);
    snprintf(cells[4], CELL, "%.0f", r->elapsed_s);
    snprintf(cells[5], CELL, "%s", r->test);
    snprintf(cells[6], CELL, "%.2f ± %.2f", 1e-6 * report->ns.mean, 1e-6 * report->ns.deviation);
    for (size_t i = 7; i < N_COLUMNS; i++)
        cells[i][0] = 0;
    if (r->n_tokens)
        snprintf(cells[7], CELL, "%.2f ± %.2f", report->rate.mean, report->rate.deviation);
    if (r->limited) {
        snprintf(cells[8], CELL, "%.2f", 1e-6 * report->limit);
        snprintf(cells[9], CELL, "%.1f %%", 100 * report->share);
    }
    if (isfinite(r->joules)) {
        snprintf(cells[10], CELL, "%.2f", energy_of(r));
        if (r->n_tokens)
            snprintf(cells[11], CELL, "%.2f", tokens_per_joule(r));
    }
    print_row(bench, texts, out);
}

/* ", 2400 MHz, 45 degrees C", as far as it is known. */
static void sensors_text(struct sensors s, char text[64])
{
    int n = 0;
    text[0] = 0;
    if (isfinite(s.mhz))
        n = snprintf(text, 64, ", %.0f MHz", s.mhz);
    if (isfinite(s.celsius))
        snprintf(text + n, (size_t)(64 - n), ", %.0f degrees C", s.celsius);
}

/* The sensors at the end, where there are any. */
static void print_sensors(const struct bench *bench, FILE *out)
{
    char now[64], lowest[64];
    sensors_text(sensors_read(&bench->machine), now);
    sensors_text(bench->lowest, lowest);
    if (*now && *lowest)
        fprintf(out, "\nat the end: %s; lowest: %s\n", now + 2, lowest + 2);
}

static void print_machine(const struct bench *bench, FILE *out)
{
    const struct machine *m = &bench->machine;
    const int *asked;
    const char *why;
    char sensors[64], threads[128] = "as many as suit";
    const size_t n_asked = asked_cores(&asked, &why);
    sensors_text(sensors_read(m), sensors);
    for (size_t i = 0, at = 0; i < bench->n_threads.n && bench->n_threads.items[i] && at < 100; i++)
        at += (size_t)snprintf(threads + at, sizeof threads - at, "%s%zu", i ? ", " : "",
                               bench->n_threads.items[i]);
    fprintf(out, "machine: %s%s%s%s\n", *m->cpu ? m->cpu : "?", *m->governor ? ", governor " : "",
            m->governor, sensors);
    print_cores(out, "cores:   asked for", asked, n_asked);
    fprintf(out, " (%s)", why);
    print_cores(out, "; granted", m->cores, m->n_cores);
    fprintf(out,
            "\nisa:     %s, threads: %s\n"
            "model:   %s, %s, %.2f billion parameters, cache %s\n"
            "picture: %s\n"
            "ms and t/s: mean ± standard deviation%s\n\n",
            bench->info.isa, threads, bench->info.path, bench->work.weight_type,
            1e-9 * (double)bench->work.n_parameters, bench->work.kv_type,
            bench->values->images.n    ? bench->picture.name
            : bench->info.image_tokens ? "1344 x 1008 of noise (no -i)"
                                       : "none, a text model",
            bench->values->limits ? "; limit and share: medians" : "");
}

/* ---- What bench.c calls ----------------------------------------------------------------- */

/* Text is put together in memory and written at once. */
struct text {
    char *bytes;
    size_t n;
    FILE *stream;
};

static mvlm_status text_open(struct text *text, mvlm_error *error)
{
    text->stream = open_memstream(&text->bytes, &text->n);
    return text->stream ? MVLM_OK : cli_fail(error, MVLM_NO_MEMORY, "out of memory for the output");
}

static mvlm_status text_write(struct text *text, mvlm_error *error)
{
    const bool good = fclose(text->stream) == 0;
    const mvlm_status status =
        good ? put_out(text->bytes, text->n, error)
             : cli_fail(error, MVLM_NO_MEMORY, "out of memory for the output");
    free(text->bytes);
    return status;
}

mvlm_status print_start(const struct bench *bench, mvlm_error *error)
{
    struct text text;
    mvlm_status status = text_open(&text, error);
    if (status != MVLM_OK)
        return status;
    if (bench->values->bench_output == BENCH_JSON)
        fputs("[\n", text.stream);
    if (bench->values->bench_output == BENCH_MD) {
        print_machine(bench, text.stream);
        print_head(bench, text.stream);
    }
    return text_write(&text, error);
}

mvlm_status print_result(struct bench *bench, const struct result *result, mvlm_error *error)
{
    struct report report = {0};
    struct text text;
    mvlm_status status = report_on(result, &report, error);
    if (status == MVLM_OK)
        status = text_open(&text, error);
    if (status != MVLM_OK)
        return status;
    if (bench->values->bench_output == BENCH_MD) {
        print_table_row(bench, result, &report, text.stream);
    } else {
        json_t *record = record_of(bench, result, &report);
        const bool printed = print_record(bench, record, text.stream);
        json_decref(record);
        if (!printed) {
            fclose(text.stream);
            free(text.bytes);
            return cli_fail(error, MVLM_NO_MEMORY, "out of memory for a record");
        }
    }
    bench->n_printed++;
    return text_write(&text, error);
}

mvlm_status print_end(const struct bench *bench, mvlm_error *error)
{
    struct text text;
    mvlm_status status = text_open(&text, error);
    if (status != MVLM_OK)
        return status;
    if (bench->values->bench_output == BENCH_JSON)
        fputs("\n]\n", text.stream);
    if (bench->values->bench_output == BENCH_MD) {
        fprintf(text.stream, "%s%s", *bench->notes ? "\n" : "", bench->notes);
        print_sensors(bench, text.stream);
    }
    return text_write(&text, error);
}
