/* Small files of /proc and /sys. Nothing here is an error: what is not there is not known. */
#ifndef CLI_SYSTEM_FILES_H
#define CLI_SYSTEM_FILES_H

#include <stdbool.h>
#include <stddef.h>

/* "", or what MOBILEVLM_ROOT names, for tests: a folder with the /sys and /proc of another machine. */
const char *machine_root(void);

/* The first line of the file that the format names, without its newline; "" when there is none. */
__attribute__((format(printf, 3, 4))) void read_line(char *line, size_t capacity,
                                                     const char *format, ...);

/* The number at the beginning of that line, decimal or 0x...; NAN when there is none. */
__attribute__((format(printf, 1, 2))) double read_value(const char *format, ...);

/* Calls `visit` with each path that root + pattern names, in the names' order; a `*` ends a name of the pattern and
 * stands for the rest of it. (glob would add 120 KB to a static program: it looks up users.) */
void each_path(const char *root, const char *pattern, void (*visit)(void *user, const char *path),
               void *user);

/* What stands behind "key : " in a file such as /proc/cpuinfo; false when nothing does. */
bool read_key(const char *path, const char *key, char *value, size_t capacity);

#endif
