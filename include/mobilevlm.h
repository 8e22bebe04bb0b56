/* mobilevlm: pictures and a question in, text out, on the CPU, from one weight file.
 *
 * A model is an opened weight file: read-only, mapped, shared by any number of sessions and
 * threads. A session is one conversation's memory (key/value cache and scratch); one thread at a
 * time may use it, several sessions of one model may run at once. There is no global state.
 *
 *     mvlm_model *model;
 *     mvlm_session *session;
 *     mvlm_error error;
 *     if (mvlm_model_open("model.bin", NULL, &model, &error) != MVLM_OK ||
 *         mvlm_session_open(model, NULL, &session, &error) != MVLM_OK)
 *         ... error.message says what is wrong
 *     mvlm_picture picture = {.name = "cat.jpg", .bytes = bytes, .n_bytes = n};
 *     mvlm_turn turn = {.question = "What is this?"};
 *     mvlm_question question = {
 *         .pictures = &picture, .n_pictures = 1, .turns = &turn, .n_turns = 1};
 *     mvlm_ask(session, &question, print_text, NULL, &error);
 *
 * Every struct of options may be zeroed: 0 and NULL mean the default named beside the field.
 * Strings are UTF-8 and end with NUL. Pointers that a caller passes in are only read during the
 * call, unless it says otherwise. The answer is the same, byte for byte, for any number of threads.
 */
#ifndef MOBILEVLM_H
#define MOBILEVLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MVLM_VERSION "0.1.0"

/* What every fallible call returns; the numbers are also the command line's exit codes. */
typedef enum mvlm_status {
    MVLM_OK = 0,
    MVLM_USAGE = 2,     /* a wrong argument, or a prompt that does not fit */
    MVLM_BAD_MODEL = 3, /* model file (for the converter: checkpoint) */
    MVLM_BAD_PICTURE = 4,
    MVLM_NO_MEMORY = 5,   /* none left, or more than the budget */
    MVLM_UNSUPPORTED = 6, /* this processor lacks what was asked for */
    MVLM_OUT_OF_TIME = 7,
    MVLM_BAD_OUTPUT = 8, /* an output cannot be written */
    MVLM_CANCELLED = 9,  /* mvlm_session_cancel, or a callback returned non-zero */
} mvlm_status;

/* Filled when a call fails: one line, without the program's name and without a newline. */
typedef struct mvlm_error {
    mvlm_status status;
    char message[1000];
} mvlm_error;

/* A sentence fragment for a status; never NULL. */
const char *mvlm_status_text(mvlm_status status);

/* ---- Model ------------------------------------------------------------------------------ */

typedef struct mvlm_model mvlm_model;
typedef struct mvlm_session mvlm_session;

typedef struct mvlm_model_options {
    /* Highest rung of kernels to use, "c" to "avx512vnni"; NULL: the best that the CPU has. */
    const char *isa;
} mvlm_model_options;

/* Maps the file and checks its header, description and directory, without touching the weights.
 * On success the caller owns *model; on error *model is NULL. `options` may be NULL.
 * While models are open SIGBUS is handled: a file that is cut, or whose disk fails, makes the calls that need it fail with
 * MVLM_BAD_MODEL. Signals that are not about these files go to the handler that was there before, which comes back with the
 * last mvlm_model_close. Who installs one of his own meanwhile calls the one that he found for what is not his.
 * Fails with MVLM_BAD_MODEL, MVLM_NO_MEMORY, or MVLM_USAGE and MVLM_UNSUPPORTED for the rung. */
mvlm_status mvlm_model_open(const char *path, const mvlm_model_options *options, mvlm_model **model,
                            mvlm_error *error);

/* All sessions must be closed before. NULL is allowed. */
void mvlm_model_close(mvlm_model *model);

/* Reads the whole file: every digest, padding and bound. Each problem is reported through `problem`
 * (may be NULL) as one line; returns MVLM_BAD_MODEL when there was one that makes the file
 * unusable, with the first in `error`. Odd but allowed values (a NaN in a norm) are reported with
 * fatal false. */
typedef void (*mvlm_problem_fn)(void *user, const char *line, bool fatal);
mvlm_status mvlm_model_verify(const mvlm_model *model, mvlm_problem_fn problem, void *user,
                              mvlm_error *error);

typedef struct mvlm_model_info {
    const char *path;
    uint64_t n_bytes; /* length of the file */
    uint32_t format_version;
    /* 32 hexadecimal digits over everything before the data, the tensors' digests included. */
    const char *digest;
    const char *isa;     /* kernels in use */
    size_t context_size; /* positions that the model was trained for */
    size_t vocab_size;
    size_t image_tokens; /* rows that a picture takes; 0: the model takes no pictures */
    bool has_template;   /* false: a base model, the prompt is the whole text */
    size_t n_fields, n_tensors;
} mvlm_model_info;

void mvlm_model_describe(const mvlm_model *model, mvlm_model_info *info);

/* One field of the file's description (models/FORMAT.md). Pointers live as long as the model. */
typedef struct mvlm_field {
    const char *key;
    enum { MVLM_INTEGER, MVLM_REAL, MVLM_TEXT, MVLM_REALS } kind;
    int64_t integer;
    double real;
    const char *text;
    const double *reals; /* [n_reals] */
    size_t n_reals;
} mvlm_field;

/* false when index is not below n_fields. */
bool mvlm_model_field(const mvlm_model *model, size_t index, mvlm_field *field);

typedef struct mvlm_tensor {
    const char *name;
    const char *type;         /* "f32", "f16", "q8", "q4" */
    int64_t shape[2];         /* rows, columns; a vector has one column */
    uint64_t offset, n_bytes; /* in the file */
    char digest[33];          /* XXH3-128 of the bytes, hexadecimal */
} mvlm_tensor;

/* false when index is not below n_tensors. */
bool mvlm_model_tensor(const mvlm_model *model, size_t index, mvlm_tensor *tensor);

/* ---- Tokens ----------------------------------------------------------------------------- */

#define MVLM_IMAGE_ID (-200) /* stands for a picture in a sequence of ids */

enum {
    MVLM_ADD_BOS = 1,      /* put the beginning-of-sequence id first, where the tokenizer has one */
    /* read "</s>", "<image>" and the like as the ids that they name. (Tokens that were added to a
       vocabulary and are not special, such as runs of spaces, are read in any case.) */
    MVLM_READ_SPECIAL = 2,
};

/* Text (n_bytes of UTF-8, NUL allowed) -> ids. At most `capacity` ids are written to `ids`; *n_ids
 * is how many there are in all: call with capacity 0 to learn it. MVLM_USAGE for text that is no
 * UTF-8. */
mvlm_status mvlm_tokenize(const mvlm_model *model, const char *text, size_t n_bytes, int flags,
                          int32_t *ids, size_t capacity, size_t *n_ids, mvlm_error *error);

/* Ids -> text, special tokens left out, in the same manner: *n_bytes is the length in all, no NUL
 * is added. Nothing is trimmed but the space that the tokenizer itself puts first. MVLM_USAGE for
 * an id out of range. */
mvlm_status mvlm_detokenize(const mvlm_model *model, const int32_t *ids, size_t n_ids, char *text,
                            size_t capacity, size_t *n_bytes, mvlm_error *error);

/* ---- Session ---------------------------------------------------------------------------- */

typedef enum mvlm_kv_type { MVLM_KV_AUTO, MVLM_KV_F32, MVLM_KV_F16, MVLM_KV_Q8 } mvlm_kv_type;

typedef struct mvlm_session_options {
    /* 0: one a core that the process may use; the calling thread is one of them. The others start with
     * the session, sleep between calls, block all signals, and end with it. */
    int n_threads;
    /* Positions in the cache; 0: as the question needs, at most the model's context. */
    size_t n_ctx;
    mvlm_kv_type kv_type; /* auto: f32 for f32 files, else q8 */
    /* Bytes; a plan beyond it is refused before anything is allocated; 0: no limit. */
    uint64_t max_rss;
    uint64_t max_pixels; /* a picture's; 0: 100 million */
    /* Keep the vision tower's weights in memory after a picture, for pictures that follow soon; else
     * its pages are given back to the system, which may still hold them in its cache. */
    bool keep_tower;
    /* Keep the cache between questions: what a question has in common with the beginning of the one
     * before, pictures included, is not read again. n_ctx 0 is the model's context then, and memory
     * is that of the longest question. */
    bool keep_cache;
    /* Questions that are answered together (mvlm_sequence_begin, mvlm_step), at most 64; 0: 1. Each
     * has a cache of n_ctx positions of its own, kept as with keep_cache. */
    size_t n_sequences;
    /* A folder where what the model makes of pictures is kept, and taken from: a picture that was seen
     * before costs no encoding, and with composite attention, where its position is the same, no
     * reading (for which memory of a picture's keys and values is planned). Made when it is missing; NULL: none. Several processes may share one.
     * Whatever is damaged there is computed anew. */
    const char *cache_folder;
    uint64_t cache_bytes; /* at most in that folder: what was not used for longest goes; 0: 2^30 */
} mvlm_session_options;

mvlm_status mvlm_session_open(mvlm_model *model, const mvlm_session_options *options,
                              mvlm_session **session, mvlm_error *error);
void mvlm_session_close(mvlm_session *session);

/* Stops the call that is under way in `session`, or else the next one, with MVLM_CANCELLED, soon.
 * From any thread or signal handler. */
void mvlm_session_cancel(mvlm_session *session);

enum { MVLM_OBSERVED_ROWS = 32 };

/* What matrices read: called with rows [n_rows][n], at most MVLM_OBSERVED_ROWS at a time and those of
 * one product in order, before a weight matrix of n inputs is multiplied with them; `tensor_offset` is its tensor's
 * mvlm_tensor.offset. Where the layer reads eight bits, the rows hold what these stand for. On the
 * thread that called into the session; `rows` is valid during the call. */
typedef void (*mvlm_observer_fn)(void *user, uint64_t tensor_offset, const float *rows,
                                 size_t n_rows, size_t n);

/* Has `observer` called for every product from now on, in all calls that compute in `session`, until
 * another one takes its place; NULL: nobody, which costs nothing. Numbers do not depend on it. */
void mvlm_session_observe(mvlm_session *session, mvlm_observer_fn observer, void *user);

/* Memory that a session will take, in bytes, computed without allocating it. */
typedef struct mvlm_memory {
    uint64_t weights; /* of the mapped file, as much as is in memory at once */
    uint64_t kv_cache, scratch;
    uint64_t total;
} mvlm_memory;

/* For a prompt of `n_rows` positions (pictures included) of which `n_pictures` are pictures, and at
 * most `max_tokens` of answer. n_rows 0: the whole context. */
mvlm_status mvlm_session_plan(const mvlm_model *model, const mvlm_session_options *options,
                              size_t n_rows, size_t n_pictures, size_t max_tokens,
                              mvlm_memory *memory, mvlm_error *error);

/* ---- Question and answer ---------------------------------------------------------------- */

/* A JPEG, PNG or BMP file's bytes. */
typedef struct mvlm_picture {
    const char *name; /* for messages */
    const void *bytes;
    size_t n_bytes;
} mvlm_picture;

/* A picture as the model sees it, decoded and resized; and, once a question was asked about it, what
 * the model made of it, so that further questions cost no encoding. Sessions on different threads do not
 * ask about one image at a time. */
typedef struct mvlm_image mvlm_image;

/* Needs no session: may run on any thread while sessions of the model answer. max_pixels 0: 100
 * million. The caller closes *image when no question uses it any more, and before the model; on
 * error it is NULL. MVLM_BAD_PICTURE, MVLM_NO_MEMORY; MVLM_USAGE for a text-only model. */
mvlm_status mvlm_image_open(const mvlm_model *model, const mvlm_picture *picture,
                            uint64_t max_pixels, mvlm_image **image, mvlm_error *error);
void mvlm_image_close(mvlm_image *image);

/* 32 hexadecimal digits: XXH3-128 of the pixels that the model sees. */
const char *mvlm_image_digest(const mvlm_image *image);

/* `<image>` in a question marks where the next picture stands. */
typedef struct mvlm_turn {
    const char *question;
    const char *answer; /* NULL in the last turn: it is what is asked for */
} mvlm_turn;

/* Order of application: repeat penalty, top-k, top-p, min-p, temperature. */
typedef struct mvlm_sampling {
    float temperature;    /* 0: greedy, the rest but the penalty is ignored */
    int top_k;            /* 0: off */
    float top_p;          /* 0 or 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 0 or 1: off; over the last 64 ids, prompt included */
    uint64_t seed;
} mvlm_sampling;

/* Called with what a stage computed, row-major f32: "pixels" [3, side, side], "vision" [patches,
 * width], "projector" [tokens, hidden] for each picture in turn, "logits" [rows, vocab] of the
 * prompt in one or more calls that follow each other, "generated_logits" [1, vocab] for each step.
 * Non-zero stops. */
typedef int (*mvlm_trace_fn)(void *user, const char *stage, size_t picture, const float *values,
                             const size_t *shape, int n_dims);

typedef enum mvlm_stage {
    MVLM_TO_END,
    MVLM_TO_PIXELS,
    MVLM_TO_VISION,
    MVLM_TO_PROJECTOR,
    MVLM_TO_LOGITS
} mvlm_stage;

/* What the pointers point to is kept by the caller until the answer ends. */
typedef struct mvlm_question {
    const mvlm_picture *pictures;
    mvlm_image *const *images; /* instead of `pictures`, opened before; else NULL */
    size_t n_pictures;
    const mvlm_turn *turns;
    size_t n_turns;
    const char *system; /* NULL: the template's */
    /* turns[0].question is the whole text: no template, special tokens are read; "" is the
     * beginning-of-sequence id alone, where the tokenizer adds one */
    bool raw;
    size_t max_tokens; /* 0: 256 */
    mvlm_sampling sampling;
    const char *const *stops; /* the answer ends before any of these */
    size_t n_stops;
    mvlm_trace_fn trace; /* NULL: off */
    void *trace_user;
    mvlm_stage until; /* with MVLM_TO_END the answer; else nothing is computed beyond that stage */
    /* Called as work goes on, with the share of a stage that is done, 0 to 1; non-zero stops. */
    int (*progress)(void *user, const char *stage, double share);
    void *progress_user;
} mvlm_question;

typedef enum mvlm_finish { MVLM_UNFINISHED, MVLM_STOP, MVLM_LENGTH, MVLM_STOP_TEXT } mvlm_finish;

/* One step of the answer. Text is held back while it may still be trimmed, be half a character or
 * belong to a stop text, so it may be empty while there are ids, and the last piece may come with
 * no id. */
typedef struct mvlm_piece {
    int32_t id;       /* sampled id; -1 for none */
    const char *text; /* new bytes of the answer; valid until the next call */
    size_t n_bytes;
    mvlm_finish finish; /* other than MVLM_UNFINISHED: this was the last piece */
} mvlm_piece;

/* Positions that the question's prompt takes, pictures included (which need not be there: n_pictures
 * counts). MVLM_USAGE as mvlm_begin. */
mvlm_status mvlm_question_rows(const mvlm_model *model, const mvlm_question *question,
                               size_t *n_rows, mvlm_error *error);

/* Pictures are encoded, the prompt is read, and the first logits stand ready. Forgets earlier
 * questions. */
mvlm_status mvlm_begin(mvlm_session *session, const mvlm_question *question, mvlm_error *error);

/* The next piece. No memory is allocated. */
mvlm_status mvlm_next(mvlm_session *session, mvlm_piece *piece, mvlm_error *error);

/* mvlm_begin, then mvlm_next until the end, each text handed to `text` (may be NULL; non-zero
 * stops). */
typedef int (*mvlm_text_fn)(void *user, const char *text, size_t n_bytes);
mvlm_status mvlm_ask(mvlm_session *session, const mvlm_question *question, mvlm_text_fn text,
                     void *user, mvlm_error *error);

/* The same for the session's sequence `index` (below n_sequences; mvlm_begin is sequence 0). The
 * others go on where they are. */
mvlm_status mvlm_sequence_begin(mvlm_session *session, size_t index, const mvlm_question *question,
                                mvlm_error *error);

/* The next pieces of all answers under way, computed together: the weights are read once for all of
 * them. pieces [n_sequences]; of a sequence without an answer under way, id is -1 and there is no
 * text. Every answer is that of mvlm_begin and mvlm_next. */
mvlm_status mvlm_step(mvlm_session *session, mvlm_piece *pieces, mvlm_error *error);

/* No free text: the probability of each of n choices as the answer of sequence `index`, that is of its
 * tokens and the end token behind the prompt, normalised over the choices: probabilities [n] sum to 1.
 * The prompt is read once, and of a choice only what it has not in common with the one before. Only the
 * question's pictures, turns and system text matter. MVLM_USAGE for no choices and empty ones. */
mvlm_status mvlm_sequence_choose(mvlm_session *session, size_t index, const mvlm_question *question,
                                 const char *const *choices, size_t n, double *probabilities,
                                 mvlm_error *error);

/* Gives an answer up. */
void mvlm_sequence_end(mvlm_session *session, size_t index);

/* Of the last question. */
typedef struct mvlm_counters {
    size_t prompt_tokens;    /* ids of text, BOS included, pictures not */
    size_t image_tokens;     /* rows of pictures */
    size_t generated_tokens; /* the end token is not counted */
    size_t reused_rows;      /* of the prompt, that the cache, or the folder, held already */
    size_t cached_pictures;  /* whose rows were in the folder of the cache */
    double decode_picture_ms, preprocess_ms, encode_ms, project_ms, prefill_ms, generate_ms;
    double linear_ms; /* of the above: time in matrix products */
    size_t n_ctx;
    int n_threads;
    mvlm_memory memory; /* planned */
} mvlm_counters;
void mvlm_session_counters(const mvlm_session *session, mvlm_counters *counters);
void mvlm_sequence_counters(const mvlm_session *session, size_t index, mvlm_counters *counters);

/* The ids of the last question's prompt, MVLM_IMAGE_ID for each picture; valid until the next
 * question. */
const int32_t *mvlm_session_prompt_ids(const mvlm_session *session, size_t *n_ids);

/* Log-likelihood: losses[i] = -log p(ids[i + 1] | ids[0..i]) for i in 0..n_ids-2, natural
 * logarithm. */
mvlm_status mvlm_score(mvlm_session *session, const int32_t *ids, size_t n_ids, float *losses,
                       mvlm_error *error);

/* ---- Measuring -------------------------------------------------------------------------- */

/* Reads ids, no pictures, as positions `position`, position + 1, ... of the cache, and computes the
 * logits of the last one: what a prompt and the steps of an answer cost, without sampling.
 * Position 0 begins anew, with a cache for the session's n_ctx (0: the model's context); others
 * continue mvlm_read calls that have read all positions below, and forget what these read from
 * `position` on. Ends an answer that was under way. MVLM_USAGE when it does not fit, or for an id
 * out of range. */
mvlm_status mvlm_read(mvlm_session *session, size_t position, const int32_t *ids, size_t n_ids,
                      mvlm_error *error);

/* The same with rows that attend each to itself alone, as a picture's do with composite attention:
 * what these cost, whether or not the model is said to have it. */
mvlm_status mvlm_read_alone(mvlm_session *session, size_t position, const int32_t *ids,
                            size_t n_ids, mvlm_error *error);

/* What cannot be beaten: reading the weights, or multiplying and adding (single precision,
 * eight-bit rows with eight-bit weights, and with four-bit ones). */
typedef enum mvlm_limit {
    MVLM_LIMIT_READ,
    MVLM_LIMIT_F32,
    MVLM_LIMIT_W8A8,
    MVLM_LIMIT_W4A8
} mvlm_limit;

/* Measures a limit with the session's own threads and instruction set, in some tens of
 * milliseconds: *per_second is bytes of the model's own mapping (the decoder's part, in the page
 * cache after the first call) or multiply-accumulates. The session keeps its state. */
mvlm_status mvlm_measure_limit(mvlm_session *session, mvlm_limit limit, double *per_second,
                               mvlm_error *error);

/* What a model has to do, by arithmetic from its description. A multiply-accumulate is one
 * multiplication with its addition; only matrix products, attention and convolutions count. */
typedef struct mvlm_work {
    double encode_macs;  /* a picture through the tower */
    double project_macs; /* ... and through the projector */
    double row_macs;     /* a row through the decoder's layers */
    /* of row_macs, what is saved on each row but the last, because nobody reads its last layer */
    double saved_macs;
    /* of row_macs, what composite attention saves on a picture's row: no query is computed for it */
    double query_macs;
    double attention_macs;                /* of a row, for each position that it sees */
    double head_macs;                     /* a row's logits */
    uint64_t encode_bytes, project_bytes; /* weights of the tower and the projector, as stored */
    uint64_t step_bytes;  /* that reading one row takes: layers and head, as they are stored */
    uint64_t cache_bytes; /* of a position */
    uint64_t n_parameters;
    /* which limit the multiply-accumulates of the tower and projector, and of the decoder have */
    mvlm_limit picture_limit, decoder_limit;
    bool composite_attention; /* a picture's rows attend to themselves alone */
    const char *weight_type; /* of the decoder's layers: "q4" */
    const char *kv_type;     /* of the cache: "q8" */
} mvlm_work;

/* `kv_type` decides cache_bytes. */
void mvlm_model_work(const mvlm_model *model, mvlm_kv_type kv_type, mvlm_work *work);

#ifdef __cplusplus
}
#endif

#endif
