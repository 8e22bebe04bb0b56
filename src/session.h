/* A session's memory: what it holds, how large it is, and where each part lies. */
#ifndef SRC_SESSION_H
#define SRC_SESSION_H

#include "answer.h"
#include "arena.h"
#include "compute.h"
#include "decoder.h"
#include "detokenize.h"
#include "held.h"
#include "image_cache.h"
#include "image_rows.h"
#include "kv_cache.h"
#include "model.h"
#include "projector.h"
#include "sampler.h"
#include "tokenizer.h"
#include "vision.h"

/* What decides how much memory a question needs. */
struct session_sizes {
    size_t n_ctx;  /* positions in a sequence's cache */
    size_t n_rows; /* of the prompt; the decoder reads them in chunks of at most MAX_CHUNK */
    size_t n_pictures;
    size_t max_tokens;  /* of the answer */
    size_t n_sequences; /* that are answered together */
    int n_threads;
    enum tensor_type kv_type;
    bool keep_tower;
    bool keep_picture_kv; /* picture_kv.h */
};

enum {
    MOST_Q8_POSITIONS = 1 << 17, /* of a cache of eight bits: 127 x 127 of each fit 31 bits */
    MAX_CHUNK = 512,             /* rows that the decoder reads at once */
    LOGIT_ROWS = 16,             /* rows of logits at once, when all are asked for */
    DEFAULT_TOKENS = 256,
    MOST_SEQUENCES = 64,
};

/* A question, its answer, and the cache that both are read into. */
struct sequence {
    struct kv_cache cache;
    struct held held; /* what the cache holds */

    mvlm_question question;
    struct id_list prompt;            /* ids, MVLM_IMAGE_ID for a picture */
    size_t n_rows, max_tokens;        /* of the prompt; of the answer */
    struct mvlm_image *const *images; /* [question.n_pictures] */
    struct mvlm_image **own_images;   /* the same where the question gave files; else NULL */
    size_t n_own_images;
    struct sampler sampler;
    struct detokenizer detokenizer;
    struct answer answer;
    float *logits;   /* [vocab], of what follows the rows in the cache */
    int32_t pending; /* sampled but not yet read by the decoder; -1: none */
    enum { SESSION_IDLE, SESSION_ANSWERING, SESSION_ENDED, SESSION_READING } state;
    mvlm_counters counters;
};

struct mvlm_session {
    mvlm_model *model;
    mvlm_session_options options; /* n_threads: what there were when it was opened, never 0 */
    struct session_sizes sizes;   /* of the memory that stands ready */
    mvlm_memory plan;
    struct arena arena;

    struct compute compute;
    struct rope_tables rope;
    /* the tower and the projector share their memory with the decoder: pictures come first */
    struct vision_buffers vision;
    struct projector_buffers projector;
    struct decoder_buffers decoder;
    float *pixels;     /* [3, side, side] */
    char *token_bytes; /* of one token */
    void *
        picture_kv; /* picture_kv.h: a picture's keys and values on their way; of picture_kv_bytes */
    size_t picture_kv_bytes;

    struct sequence *sequences; /* [options.n_sequences] */
    struct image_cache images;
};

/* The type that a cache is kept in. */
enum tensor_type session_kv_type(const mvlm_model *model, mvlm_kv_type wanted);

/* Sizes of a question under the session's options; MVLM_USAGE when it does not fit. Of a session that
 * keeps its caches the memory is always that of the longest question. */
mvlm_status session_sizes_of(const mvlm_model *model, const mvlm_session_options *options,
                             size_t n_rows, size_t n_pictures, size_t max_tokens,
                             struct session_sizes *sizes, mvlm_error *error);

/* The memory that these sizes take. */
void session_plan(const mvlm_model *model, const struct session_sizes *sizes, mvlm_memory *plan);

/* Makes the memory ready for `sizes`, keeping what there is when it suffices; what caches hold is
 * forgotten unless they stay where they are. MVLM_NO_MEMORY, with the plan in the message, when it is
 * more than the budget or more than there is. */
mvlm_status session_prepare(struct mvlm_session *session, const struct session_sizes *sizes,
                            mvlm_error *error);

/* Gives back the pictures that the question's files were read into. */
void sequence_close_images(struct sequence *sequence);

/* What every call of the public API that computes for `sequence` (NULL: for all) ends with; returns
 * `status`, or MVLM_BAD_MODEL when the file could not be read meanwhile. */
mvlm_status session_finish(struct mvlm_session *session, struct sequence *sequence,
                           mvlm_status status, mvlm_error *error);

#endif
