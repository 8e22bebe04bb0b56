#include "system_files.h"

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *machine_root(void)
{
    const char *root = getenv("MOBILEVLM_ROOT");
    return root ? root : "";
}

/* The first line of a file without its newline; "" when there is none. */
static void first_line(const char *path, char *line, size_t capacity)
{
    FILE *file = fopen(path, "re");
    line[0] = 0;
    if (file && fgets(line, (int)capacity, file))
        line[strcspn(line, "\n")] = 0;
    if (file)
        fclose(file);
}

void read_line(char *line, size_t capacity, const char *format, ...)
{
    char path[512];
    va_list values;
    va_start(values, format);
    vsnprintf(path, sizeof path, format, values);
    va_end(values);
    first_line(path, line, capacity);
}

double read_value(const char *format, ...)
{
    char path[512], line[64], *end;
    va_list values;
    va_start(values, format);
    vsnprintf(path, sizeof path, format, values);
    va_end(values);
    first_line(path, line, sizeof line);
    const double value = strtod(line, &end);
    return end == line ? NAN : value;
}

bool read_key(const char *path, const char *key, char *value, size_t capacity)
{
    char line[256];
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0 && strchr(line, ':')) {
            const char *at = strchr(line, ':') + 1;
            at += strspn(at, " \t");
            snprintf(value, capacity, "%.*s", (int)strcspn(at, "\n"), at);
            found = true;
        }
    if (file)
        fclose(file);
    return found;
}

void each_path(const char *root, const char *pattern, void (*visit)(void *user, const char *path),
               void *user)
{
    char path[512];
    const char *star = strchr(pattern, '*');
    if (!star) {
        snprintf(path, sizeof path, "%s%s", root, pattern);
        visit(user, path);
        return;
    }
    const char *name = star;
    while (name > pattern && name[-1] != '/')
        name--;
    snprintf(path, sizeof path, "%s%.*s", root, (int)(name - pattern), pattern);
    struct dirent **entries;
    const size_t folder_length = strlen(path), prefix_length = (size_t)(star - name);
    const int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        const char *entry = entries[i]->d_name;
        if (*entry != '.' && strncmp(entry, name, prefix_length) == 0) {
            snprintf(path + folder_length, sizeof path - folder_length, "%s", entry);
            each_path(path, star + 1, visit, user);
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}
