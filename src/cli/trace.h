/* mobilevlm trace: every stage's numbers, as .npy files in a folder. */
#ifndef CLI_TRACE_H
#define CLI_TRACE_H

#include "mobilevlm.h"
#include "npy.h"

struct trace {
    const char *folder;
    struct npy stage; /* the array being written by the engine's callback */
    char stage_name[64];
    struct npy generated_logits, generated_ids;
    mvlm_error error; /* of the callback */
};

/* Makes the folder if there is none, and asks `question` to be traced. */
mvlm_status trace_start(struct trace *trace, const char *folder, mvlm_question *question,
                        mvlm_error *error);

/* An id of the answer (the end token is not one). */
mvlm_status trace_id(struct trace *trace, int32_t id, mvlm_error *error);

/* Writes the prompt's ids and ends all files. `status` is what the answer came to: a failure of the
 * trace's own callback is behind it then. */
mvlm_status trace_finish(struct trace *trace, const mvlm_session *session, mvlm_status status,
                         mvlm_error *error);

#endif
