/* A few layers of a full-size model, to be counted under an emulator (tools/arm-cost.sh):
 *     layer_cost MODEL ISA text LAYERS STEPS     a prompt of 176 rows, then so many steps
 *     layer_cost MODEL ISA picture LAYERS        a grey picture through so many layers of the tower
 * The difference of two runs is what the layers or steps between them cost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

enum { N_ROWS = 176, MOST_STEPS = 64, N_CTX = N_ROWS + MOST_STEPS };

static int failed(const mvlm_error *error)
{
    fprintf(stderr, "layer_cost: %s\n", error->message);
    return 1;
}

static mvlm_status read_text(mvlm_model *model, int64_t n_layers, int n_steps, mvlm_error *error)
{
    const mvlm_session_options options = {.n_threads = 1, .n_ctx = N_CTX};
    int32_t ids[N_CTX];
    mvlm_session *session;
    for (int32_t i = 0; i < N_CTX; i++)
        ids[i] = 300 + i;
    model->description.decoder.n_layers = n_layers;
    mvlm_status status = mvlm_session_open(model, &options, &session, error);
    if (status == MVLM_OK)
        status = mvlm_read(session, 0, ids, N_ROWS, error);
    for (int i = 0; i < n_steps && status == MVLM_OK; i++)
        status = mvlm_read(session, (size_t)(N_ROWS + i), ids + N_ROWS + i, 1, error);
    mvlm_session_close(session);
    return status;
}

/* A BMP of one pixel. */
static const unsigned char picture_file[] = {
    'B', 'M', 58, 0, 0, 0, 0, 0, 0,  0, 54, 0, 0, 0, 40,  0,   0,   0, 1, 0,
    0,   0,   1,  0, 0, 0, 1, 0, 24, 0, 0,  0, 0, 0, 4,   0,   0,   0, 0, 0,
    0,   0,   0,  0, 0, 0, 0, 0, 0,  0, 0,  0, 0, 0, 128, 128, 128, 0};

static mvlm_status see_picture(mvlm_model *model, int64_t n_layers, mvlm_error *error)
{
    const mvlm_session_options options = {.n_threads = 1};
    const mvlm_picture picture = {
        .name = "grey", .bytes = picture_file, .n_bytes = sizeof picture_file};
    const mvlm_turn turn = {.question = "?"};
    const mvlm_question question = {.pictures = &picture,
                                    .n_pictures = 1,
                                    .turns = &turn,
                                    .n_turns = 1,
                                    .max_tokens = 1,
                                    .until = MVLM_TO_PROJECTOR};
    mvlm_session *session;
    model->description.vision.n_layers = n_layers;
    mvlm_status status = mvlm_session_open(model, &options, &session, error);
    if (status == MVLM_OK)
        status = mvlm_begin(session, &question, error);
    mvlm_session_close(session);
    return status;
}

int main(int argc, char **argv)
{
    mvlm_model *model;
    mvlm_error error;
    if (argc < 5) {
        fprintf(stderr, "usage: layer_cost MODEL ISA text LAYERS STEPS | picture LAYERS\n");
        return 2;
    }
    const mvlm_model_options options = {.isa = argv[2]};
    if (mvlm_model_open(argv[1], &options, &model, &error) != MVLM_OK)
        return failed(&error);
    const int n_layers = atoi(argv[4]), n_steps = argc > 5 ? atoi(argv[5]) : 0;
    mvlm_status status = n_layers < 1 || n_steps < 0 || n_steps > MOST_STEPS ? MVLM_USAGE : MVLM_OK;
    snprintf(error.message, sizeof error.message, "at least one layer, at most %d steps",
             MOST_STEPS);
    if (status == MVLM_OK)
        status = strcmp(argv[3], "text") == 0 ? read_text(model, n_layers, n_steps, &error)
                                              : see_picture(model, n_layers, &error);
    mvlm_model_close(model);
    return status == MVLM_OK ? 0 : failed(&error);
}
