/* JSON where memory may be missing. jansson does not always tell: it then calls a text damaged, or leaves a part of it
 * out. What is here fails then, and says why. Shared with the converter; any thread.
 *
 * Programs with this in them free what jansson's own json_dumps gives with json_get_alloc_funcs' free, not with free(). */
#ifndef CLI_JSON_MEMORY_H
#define CLI_JSON_MEMORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* json_loadb. NULL: *no_memory, or *where says what is wrong with the text. */
json_t *json_read(const char *bytes, size_t n, size_t flags, json_error_t *where, bool *no_memory);

/* json_dumps. NULL: there is no value, or no memory; free() it. */
char *json_written(const json_t *value, size_t flags);

/* Can JSON hold the text: is it UTF-8? False without memory, too. */
bool json_can_hold(const char *text, size_t n, bool *no_memory);

/* Text that may be no UTF-8, as paths may: what is none becomes '?'. NULL: no memory. */
json_t *json_text(const char *text);

/* Takes the value into the object or the array. Where it is NULL or there is no memory, *object becomes NULL, and then
 * stays so: one look at the end tells. */
void json_put(json_t **object, const char *key, json_t *value);
void json_push(json_t **array, json_t *value);

#endif
