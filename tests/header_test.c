/* The public header alone, as strict C11: built with -std=c11 -pedantic-errors and without
 * _GNU_SOURCE. */
#include "mobilevlm.h"

int main(void)
{
    mvlm_model *model;
    return mvlm_model_open("/nonexistent/model.bin", NULL, &model, NULL) == MVLM_BAD_MODEL ? 0 : 1;
}
