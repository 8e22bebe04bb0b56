/* With composite attention a picture's keys and values depend on nothing before it but its position (and, where the cache
 * stores keys less their origin, on the sequence's first id): the folder of pictures' rows keeps them too, so that
 * another question about the picture need not read it again. */
#ifndef SRC_PICTURE_KV_H
#define SRC_PICTURE_KV_H

#include "session.h"

/* Does a session with these options keep them? */
bool picture_kv_wanted(const struct mvlm_model *model, const mvlm_session_options *options);

/* May the picture at row `first` > 0 of the sequence be kept? */
bool picture_kv_is_kept(const struct mvlm_session *session, const struct sequence *sequence,
                        size_t first);

/* Puts the picture's keys and values into the sequence's cache from row `first` on; false: the folder has none. */
bool picture_kv_find(struct mvlm_session *session, const struct sequence *sequence,
                     const struct mvlm_image *image, size_t first);

/* Puts them into the folder. */
void picture_kv_keep(struct mvlm_session *session, const struct sequence *sequence,
                     const struct mvlm_image *image, size_t first);

#endif
