/* A session's memory: what it holds, how large it is, and where each part lies. */
#ifndef SRC_SESSION_H
#define SRC_SESSION_H

#include "answer.h"
#include "arena.h"
#include "compute.h"
#include "decoder.h"
#include "kv_cache.h"
#include "model.h"
#include "projector.h"
#include "sampler.h"
#include "tokenizer.h"
#include "vision.h"

/* What decides how much memory a question needs. */
struct session_sizes {
    size_t n_ctx;  /* positions in the cache */
    size_t n_rows; /* of the prompt; the decoder reads them in chunks of at most MAX_CHUNK */
    size_t n_pictures;
    size_t max_tokens; /* of the answer */
    int n_threads;
    enum tensor_type kv_type;
    bool keep_tower;
};

enum {
    MOST_Q8_POSITIONS = 1 << 17, /* of a cache of eight bits: 127 x 127 of each fit 31 bits */
    MAX_CHUNK = 512,             /* rows that the decoder reads at once */
    LOGIT_ROWS = 16,             /* rows of logits at once, when all are asked for */
    DEFAULT_TOKENS = 256,
};

struct mvlm_session {
    mvlm_model *model;
    mvlm_session_options options; /* n_threads: what there were when it was opened, never 0 */
    struct session_sizes sizes; /* of the memory that stands ready */
    mvlm_memory plan;
    struct arena arena;

    struct compute compute;
    struct kv_cache cache;
    /* the tower and the projector share their memory with the decoder: pictures come first */
    struct vision_buffers vision;
    struct projector_buffers projector;
    struct decoder_buffers decoder;
    uint8_t *squares;  /* [n_pictures][side, side, 3] */
    float *pixels;     /* [3, side, side] */
    float *image_rows; /* [n_pictures][image tokens, hidden] */
    struct sampler sampler;
    struct answer answer;
    char *token_bytes; /* of one token */

    /* the question under way */
    mvlm_question question;
    struct id_list prompt; /* ids, MVLM_IMAGE_ID for a picture */
    size_t position;       /* rows in the cache */
    int32_t pending;       /* sampled but not yet read by the decoder; -1: none */
    enum { SESSION_IDLE, SESSION_ANSWERING, SESSION_ENDED, SESSION_READING } state;
    mvlm_counters counters;
};

/* The type that a cache is kept in. */
enum tensor_type session_kv_type(const mvlm_model *model, mvlm_kv_type wanted);

/* Sizes of a question under the session's options; MVLM_USAGE when it does not fit. */
mvlm_status session_sizes_of(const mvlm_model *model, const mvlm_session_options *options,
                             size_t n_rows, size_t n_pictures, size_t max_tokens,
                             struct session_sizes *sizes, mvlm_error *error);

/* The memory that these sizes take. */
void session_plan(const mvlm_model *model, const struct session_sizes *sizes, mvlm_memory *plan);

/* Makes the memory ready for `sizes`, keeping what there is when it suffices. MVLM_NO_MEMORY, with
 * the plan in the message, when it is more than the budget or more than there is. */
mvlm_status session_prepare(struct mvlm_session *session, const struct session_sizes *sizes,
                            mvlm_error *error);

/* What every call of the public API that computes ends with; returns `status`. */
mvlm_status session_finish(struct mvlm_session *session, mvlm_status status);

#endif
