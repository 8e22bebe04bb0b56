/* Files mapped for reading that may be cut while they are mapped, or lie on a disk that fails: reading such a page raises
 * SIGBUS, which would end the program. A handler answers for the pages of these mappings, and for no others: it puts zeros
 * in their place and notes it, so that all threads run on to the next look at mapping_lost.
 *
 * The handler is installed with the first mapping; a fault elsewhere goes to the handler that was there before, which
 * comes back with the end of the last mapping. One that somebody installs over it stays, and gets the mappings' faults too:
 * it is to call what it was installed over for what it does not know, as such handlers do. */
#ifndef SRC_MAPPING_H
#define SRC_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mapping;

/* Maps n_bytes > 0 of the file from its beginning, shared and for reading. NULL: errno says why. */
struct mapping *mapping_open(int file, size_t n_bytes);
void mapping_close(struct mapping *mapping); /* NULL: nothing */

const void *mapping_bytes(const struct mapping *mapping);

/* Was there a page that could not be read, or has the file become shorter? (Behind its end the rest of a page reads as
 * zeros, without a signal.) Where that begins goes to *offset. Any thread; a call of the system. */
bool mapping_lost(struct mapping *mapping, size_t *offset);

#endif
