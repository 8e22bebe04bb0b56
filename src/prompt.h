/* Question -> the sequence of rows: ids of text, and MVLM_IMAGE_ID where a picture stands.
 *
 *     template + turns -> one text -> chunks between pictures -> texts between special tokens -> ids
 *
 * Only what the template itself says (or a raw prompt) may name special tokens; what a user types is
 * plain text, in which just `<image>` is read. */
#ifndef SRC_PROMPT_H
#define SRC_PROMPT_H

#include "model.h"

/* Appends the ids of a whole question. Fails with MVLM_USAGE when it is empty, no UTF-8, or when
 * its marks and pictures are not equally many; with MVLM_BAD_MODEL when the template makes them so. */
mvlm_status prompt_ids(const struct mvlm_model *model, const mvlm_question *question,
                       struct id_list *list, mvlm_error *error);

#endif
