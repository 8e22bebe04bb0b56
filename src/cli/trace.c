#include "trace.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "options.h"

/* One array at a time, but for the generated logits, which arrive row by row between other things.
 */
static int write_stage(void *user, const char *stage, size_t picture, const float *values,
                       const size_t *shape, int n_dims)
{
    struct trace *trace = user;
    char name[64];
    if (strcmp(stage, "generated_logits") == 0)
        return npy_append(&trace->generated_logits, trace->folder, stage, "<f4", values, shape,
                          n_dims, &trace->error) != MVLM_OK;
    if (picture)
        snprintf(name, sizeof name, "%s.%zu", stage, picture);
    else
        snprintf(name, sizeof name, "%s", stage);
    if (strcmp(name, trace->stage_name) != 0) {
        if (npy_close(&trace->stage, &trace->error) != MVLM_OK)
            return 1;
        strcpy(trace->stage_name, name);
    }
    return npy_append(&trace->stage, trace->folder, name, "<f4", values, shape, n_dims,
                      &trace->error) != MVLM_OK;
}

mvlm_status trace_start(struct trace *trace, const char *folder, mvlm_question *question,
                        mvlm_error *error)
{
    *trace = (struct trace){.folder = folder};
    if (!folder)
        return cli_fail(error, MVLM_USAGE, "no folder named: -o FOLDER");
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be made: %s", folder, strerror(errno));
    question->trace = write_stage;
    question->trace_user = trace;
    return MVLM_OK;
}

mvlm_status trace_id(struct trace *trace, int32_t id, mvlm_error *error)
{
    const size_t shape[] = {1};
    return npy_append(&trace->generated_ids, trace->folder, "generated_ids", "<i4", &id, shape, 1,
                      error);
}

static mvlm_status write_prompt_ids(const struct trace *trace, const mvlm_session *session,
                                    mvlm_error *error)
{
    struct npy npy = {0};
    size_t shape[1];
    const int32_t *ids = mvlm_session_prompt_ids(session, &shape[0]);
    mvlm_status status = npy_append(&npy, trace->folder, "input_ids", "<i4", ids, shape, 1, error);
    const mvlm_status closed = npy_close(&npy, error);
    return status != MVLM_OK ? status : closed;
}

mvlm_status trace_finish(struct trace *trace, const mvlm_session *session, mvlm_status status,
                         mvlm_error *error)
{
    struct npy *const files[] = {&trace->stage, &trace->generated_logits, &trace->generated_ids};
    const size_t none[] = {0};
    if (trace->error.status != MVLM_OK)
        status = cli_fail(error, trace->error.status, "%s", trace->error.message);
    if (status == MVLM_OK &&
        trace->generated_logits
            .path) /* an answer without ids is an empty array, not a missing file */
        status = npy_append(&trace->generated_ids, trace->folder, "generated_ids", "<i4", NULL,
                            none, 1, error);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        mvlm_error closing = {0};
        if (npy_close(files[i], &closing) != MVLM_OK && status == MVLM_OK)
            status = cli_fail(error, closing.status, "%s", closing.message);
    }
    return status == MVLM_OK ? write_prompt_ids(trace, session, error) : status;
}
