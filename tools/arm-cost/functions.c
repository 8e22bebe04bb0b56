/* A plugin of qemu-user: how many instructions each function of the guest executes.
 *     cc -shared -fPIC -o functions.so functions.c
 *     qemu-aarch64 -plugin functions.so,out=counts.tsv PROGRAM ...
 * Debian has no header of the interface, so what is used of it is declared here (qemu 5 to 8, docs/devel/tcg-plugins). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 };
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*translated)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*exited)(plugin_id, void *), void *user);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation, void *at,
                                              uint64_t value);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *instruction);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { MOST = 65536 };
static struct function {
    char name[128];
    uint64_t n;
} functions[MOST];
static size_t n_functions;
static const char *out;

static struct function *find(const char *name)
{
    size_t i = 0;
    while (i < n_functions && strcmp(functions[i].name, name) != 0)
        i++;
    if (i == n_functions && n_functions + 1 < MOST)
        snprintf(functions[n_functions++].name, sizeof functions->name, "%s", name);
    return &functions[i];
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    const char *name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &find(name ? name : "?")->n,
                                             qemu_plugin_tb_n_insns(block));
}

static void exited(plugin_id id, void *user)
{
    FILE *file = fopen(out, "w");
    (void)id;
    (void)user;
    for (size_t i = 0; file && i < n_functions; i++)
        if (functions[i].n)
            fprintf(file, "%s\t%llu\n", functions[i].name, (unsigned long long)functions[i].n);
    if (!file || fclose(file) != 0)
        fprintf(stderr, "functions: %s cannot be written\n", out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info,
                                                               int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = strdup(argv[i] + 4);
    if (!out)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, exited, NULL);
    return 0;
}
