/* mobilevlm verify: every digest and every bound. */
#include "cli.h"

struct problems {
    const char *path;
    size_t n_fatal;
};

static void print_problem(void *user, const char *line, bool fatal)
{
    struct problems *problems = user;
    problems->n_fatal += fatal;
    fprintf(stderr, "mobilevlm: %s: %s%s\n", problems->path, fatal ? "" : "note: ", line);
}

mvlm_status run_verify(const struct values *values, mvlm_error *error)
{
    mvlm_model *model;
    mvlm_model_info info;
    struct problems problems = {.path = values->model};
    mvlm_status status = open_model(values, &model, error);
    if (status != MVLM_OK)
        return status;
    mvlm_model_describe(model, &info);
    status = mvlm_model_verify(model, print_problem, &problems, error);
    if (problems.n_fatal)
        error->message[0] = 0; /* all that is wrong has been printed */
    if (status == MVLM_OK && !values->quiet) {
        printf("%s: good: %zu tensors, %llu bytes, digest %s\n", values->model, info.n_tensors,
               (unsigned long long)info.n_bytes, info.digest);
        if (fflush(stdout) != 0)
            status = cli_fail(error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    }
    mvlm_model_close(model);
    return status;
}
