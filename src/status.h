/* Errors: one status, and one message written where the fault was found.
 *
 *     if (length > limit)
 *         return fail(error, MVLM_BAD_MODEL, "%s: header of %zu bytes, at most %zu", path, ...);
 */
#ifndef SRC_STATUS_H
#define SRC_STATUS_H

#include "mobilevlm.h"

/* Writes the message into `error` (may be NULL) and returns `status`. */
__attribute__((format(printf, 3, 4))) mvlm_status fail(mvlm_error *error, mvlm_status status,
                                                       const char *format, ...);

/* The message for a failed allocation of `bytes` for `what`. */
mvlm_status fail_no_memory(mvlm_error *error, const char *what, size_t bytes);

#ifdef __clang_analyzer__ /* it looks into no other file: that what failed is not MVLM_OK it has to be told */
#define fail(error, status, ...)           (fail(error, status, __VA_ARGS__), status)
#define fail_no_memory(error, what, bytes) (fail_no_memory(error, what, bytes), MVLM_NO_MEMORY)
#endif

/* Returns from the calling function when `call` does not return MVLM_OK. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        const mvlm_status try_status_ = (call);                                                    \
        if (try_status_ != MVLM_OK)                                                                \
            return try_status_;                                                                    \
    } while (0)

#endif
