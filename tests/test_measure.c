/* What `bench` stands on: mvlm_read leaves the logits that a question's prompt leaves, however it is
 * cut; the arithmetic of a small model, counted by hand; limits that grow with the work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "session.h" /* before cmocka.h, whose `fail` is a macro */
#include "status.h"

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "tiny.h"

enum { N_IDS = 40, N_TYPES = 3 };
static char *folder;
static mvlm_model *models[N_TYPES], *model; /* model: the one in use, f32 */
static struct description description;

static int open_model(void **state)
{
    static const enum tensor_type types[N_TYPES] = {TENSOR_F32, TENSOR_Q8, TENSOR_Q4};
    char path[256];
    mvlm_error error;
    (void)state;
    folder = temporary_folder();
    tiny_describe(&description);
    for (int i = 0; i < N_TYPES; i++) {
        snprintf(path, sizeof path, "%s/tiny.%d.bin", folder, i);
        tiny_write(path, &description, types[i], 3);
        if (mvlm_model_open(path, NULL, &models[i], &error) != MVLM_OK)
            fail_msg("%s", error.message);
    }
    model = models[0];
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++)
        mvlm_model_close(models[i]);
    remove_folder(folder);
    free(folder);
    return 0;
}

static mvlm_session *open_session(size_t n_ctx)
{
    const mvlm_session_options options = {.n_threads = 2, .n_ctx = n_ctx};
    mvlm_session *session;
    mvlm_error error;
    assert_int_equal(mvlm_session_open(model, &options, &session, &error), MVLM_OK);
    return session;
}

/* The logits of one read, and of a read of `cut` ids and the rest one by one, and of two reads. */
static void read_in_cuts(mvlm_session *session, const int32_t *ids, float *expected, size_t vocab)
{
    mvlm_error error;
    assert_int_equal(mvlm_read(session, 0, ids, N_IDS, &error), MVLM_OK);
    memcpy(expected, session->decoder.logits, vocab * sizeof *expected);
    for (size_t cut = 1; cut < N_IDS; cut += 9) {
        assert_int_equal(mvlm_read(session, 0, ids, cut, &error), MVLM_OK);
        for (size_t i = cut; i < N_IDS; i++)
            assert_int_equal(mvlm_read(session, i, ids + i, 1, &error), MVLM_OK);
        assert_memory_equal(session->decoder.logits, expected, vocab * sizeof *expected);
        /* back to the middle */
        assert_int_equal(mvlm_read(session, cut, ids + cut, N_IDS - cut, &error), MVLM_OK);
        assert_memory_equal(session->decoder.logits, expected, vocab * sizeof *expected);
    }
}

static void reads_in_any_cuts(void **state)
{
    const size_t vocab = (size_t)description.decoder.vocab;
    float *expected = malloc(vocab * sizeof *expected), losses[N_IDS];
    mvlm_error error;
    int32_t ids[N_IDS];
    (void)state;
    for (size_t i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)(i * 37 % vocab);
    for (int type = 0; type < N_TYPES; type++) {
        model = models[type];
        mvlm_session *session = open_session(N_IDS + 8);
        read_in_cuts(session, ids, expected, vocab);
        /* other calls take the memory; then position 0 begins anew */
        assert_int_equal(mvlm_score(session, ids, N_IDS, losses, &error), MVLM_OK);
        assert_int_equal(mvlm_read(session, 1, ids, 1, &error), MVLM_USAGE);
        assert_int_equal(mvlm_read(session, 0, ids, N_IDS, &error), MVLM_OK);
        assert_memory_equal(session->decoder.logits, expected, vocab * sizeof *expected);
        mvlm_session_close(session);
    }
    model = models[0];
    free(expected);
}

static void refuses_what_does_not_fit(void **state)
{
    mvlm_session *session = open_session(N_IDS);
    mvlm_error error;
    int32_t ids[N_IDS + 1] = {0};
    mvlm_piece piece;
    (void)state;
    assert_int_equal(mvlm_read(session, 0, ids, N_IDS + 1, &error), MVLM_USAGE);
    assert_int_equal(mvlm_read(session, 0, ids, 8, &error), MVLM_OK);
    assert_int_equal(mvlm_next(session, &piece, &error), MVLM_USAGE);
    assert_int_equal(mvlm_read(session, 0, ids, 8, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, 9, ids, 1, &error), MVLM_USAGE);
    assert_int_equal(mvlm_read(session, 0, ids, 8, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, 8, ids, N_IDS - 8, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, N_IDS, ids, 1, &error), MVLM_USAGE);
    ids[2] = MVLM_IMAGE_ID;
    assert_int_equal(mvlm_read(session, 0, ids, 8, &error), MVLM_USAGE);
    ids[2] = (int32_t)description.decoder.vocab;
    assert_int_equal(mvlm_read(session, 0, ids, 8, &error), MVLM_USAGE);
    mvlm_session_close(session);
}

static void counts_by_arithmetic(void **state)
{
    const double hidden = (double)description.decoder.hidden, ffn = (double)description.decoder.ffn,
                 q = (double)(description.decoder.n_heads * description.decoder.head_dim),
                 kv = (double)(description.decoder.n_kv_heads * description.decoder.head_dim),
                 layers = (double)description.decoder.n_layers;
    mvlm_work work, halves;
    (void)state;
    mvlm_model_work(model, MVLM_KV_AUTO, &work);
    mvlm_model_work(model, MVLM_KV_F16, &halves);
    assert_true(work.row_macs == layers * hidden * (2 * q + 2 * kv + 3 * ffn));
    assert_true(work.saved_macs == hidden * (q + 3 * ffn));
    assert_true(work.head_macs == hidden * (double)description.decoder.vocab);
    assert_true(work.attention_macs == layers * 2 * q);
    assert_true((double)work.cache_bytes == layers * 2 * kv * 4);
    assert_int_equal(halves.cache_bytes * 2, work.cache_bytes);
    assert_true((double)work.step_bytes >= 4 * (work.row_macs + work.head_macs));
    assert_true((double)work.step_bytes < 2 * 4 * (work.row_macs + work.head_macs)); /* tiles */
    assert_true(work.encode_macs > 0 && work.project_macs > 0);
    assert_int_equal(work.decoder_limit, MVLM_LIMIT_F32);
    assert_string_equal(work.weight_type, "f32");
    assert_string_equal(halves.kv_type, "f16");
}

/* Every rung says how much it has done, in proportion to the loops. */
static void peaks_count_their_work(void **state)
{
    const char *name;
    bool has, known;
    (void)state;
    for (size_t i = 0; (name = kernels_rung(i, &has)); i++) {
        const struct kernels *k = kernels_choose(name, &known);
        for (enum peak_kind kind = 0; k && kind < PEAK_COUNT; kind++) {
            assert_true(k->peak(kind, 0) == 0);
            assert_true(k->peak(kind, 3) > 0 && k->peak(kind, 6) == 2 * k->peak(kind, 3));
        }
    }
}

static void measures_limits(void **state)
{
    mvlm_session *session = open_session(0);
    mvlm_error error;
    (void)state;
    for (int limit = MVLM_LIMIT_READ; limit <= MVLM_LIMIT_W4A8; limit++) {
        double rate = 0;
        assert_int_equal(mvlm_measure_limit(session, (mvlm_limit)limit, &rate, &error), MVLM_OK);
        assert_true(isfinite(rate) && rate > 1e6);
    }
    mvlm_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_in_any_cuts),    cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(counts_by_arithmetic), cmocka_unit_test(peaks_count_their_work),
        cmocka_unit_test(measures_limits),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
