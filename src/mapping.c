#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Stays in the list, for another mapping, until the process ends: the handler may look at it at any time. */
struct mapping {
    struct mapping *next;
    bool used;                     /* under `lock` */
    int file;                      /* kept open, to see that it is cut within its last page */
    _Atomic(uintptr_t) begin, end; /* end 0: nothing is mapped */
    atomic_size_t lost;            /* offset of the first lost page, plus 1; 0: none */
};

static _Atomic(struct mapping *) mappings;

/* Of what follows; the handler reads `before` and `page` alone, which are set before it is installed. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t n_used;
static struct sigaction before; /* what ours was installed over */
static bool installed;          /* ours is the handler, or below one that was installed over it */
static uintptr_t page;

/* ---- The handler: nothing here but what may be called in one ----------------------------- */

static struct mapping *find(uintptr_t address)
{
    struct mapping *m = atomic_load(&mappings);
    while (m && (address < atomic_load(&m->begin) || address >= atomic_load(&m->end)))
        m = m->next;
    return m;
}

static void note_lost(struct mapping *m, size_t offset)
{
    size_t none = 0;
    atomic_compare_exchange_strong(&m->lost, &none, offset + 1);
}

/* Zeros from the page of `address` to the mapping's end: a file that was cut has lost them all, and one mapping in their
 * place is no more than the kernel allows, wherever threads read next. */
static bool put_zeros(struct mapping *m, uintptr_t address)
{
    const uintptr_t from = address / page * page, end = atomic_load(&m->end);
    note_lost(m, from - atomic_load(&m->begin)); /* first: who reads the zeros finds it */
    return mmap((void *)from, end - from, PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

/* Not ours: as if we had not been there. */
static void pass_on(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else if (before.sa_handler == SIG_DFL || info->si_code > 0) { /* a fault cannot be ignored */
        sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
        raise(number); /* once this returns and the signal is no longer blocked */
    }
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    const int kept = errno;
    const uintptr_t address = (uintptr_t)info->si_addr;
    struct mapping *m = info->si_code > 0 ? find(address) : NULL; /* else somebody sent it */
    if (!m || !put_zeros(m, address))
        pass_on(number, info, context);
    errno = kept;
}

/* ---- Installing it ---------------------------------------------------------------------- */

static bool is_ours(const struct sigaction *action)
{
    return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_bus_error;
}

static bool is_nobodys(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) &&
           (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN);
}

/* Never over a handler that was itself installed over ours: it may call ours, and the two would call each other for ever. */
static void install(void)
{
    struct sigaction ours = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction now;
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (sigaction(SIGBUS, NULL, &now) != 0)
        return;
    if (!is_ours(&now) && (!installed || is_nobodys(&now))) {
        before = now;
        sigaction(SIGBUS, &ours, NULL);
    }
    installed = true;
}

static void uninstall(void)
{
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && is_ours(&now))
        installed = sigaction(SIGBUS, &before, NULL) != 0;
}

/* ---- Mappings --------------------------------------------------------------------------- */

/* A free place in the list. */
static struct mapping *take_place(void)
{
    pthread_mutex_lock(&lock);
    struct mapping *m = atomic_load(&mappings);
    while (m && m->used)
        m = m->next;
    if (!m && (m = calloc(1, sizeof *m))) {
        m->next = atomic_load(&mappings);
        atomic_store(&mappings, m);
    }
    if (m) {
        m->used = true;
        if (n_used++ == 0)
            install();
    }
    pthread_mutex_unlock(&lock);
    return m;
}

static void give_place(struct mapping *m)
{
    pthread_mutex_lock(&lock);
    m->used = false;
    if (--n_used == 0)
        uninstall();
    pthread_mutex_unlock(&lock);
}

struct mapping *mapping_open(int file, size_t n_bytes)
{
    struct mapping *m = take_place();
    if (!m)
        return NULL;
    m->file = fcntl(file, F_DUPFD_CLOEXEC, 0);
    void *bytes = m->file < 0 ? MAP_FAILED : mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED) {
        const int why = errno;
        if (m->file >= 0)
            close(m->file);
        give_place(m);
        errno = why;
        return NULL;
    }
    atomic_store(&m->lost, 0);
    atomic_store(&m->begin, (uintptr_t)bytes);
    atomic_store(&m->end, (uintptr_t)bytes + n_bytes);
    return m;
}

void mapping_close(struct mapping *m)
{
    if (!m)
        return;
    const uintptr_t begin = atomic_load(&m->begin), end = atomic_load(&m->end);
    atomic_store(&m->end, 0);
    munmap((void *)begin, end - begin);
    close(m->file);
    give_place(m);
}

const void *mapping_bytes(const struct mapping *m)
{
    return (const void *)atomic_load(&m->begin);
}

bool mapping_lost(struct mapping *m, size_t *offset)
{
    struct stat about;
    atomic_thread_fence(memory_order_acquire); /* what was read before may have been zeros */
    if (!atomic_load(&m->lost) && fstat(m->file, &about) == 0 &&
        (uint64_t)about.st_size < atomic_load(&m->end) - atomic_load(&m->begin))
        note_lost(m, (size_t)about.st_size);
    const size_t lost = atomic_load(&m->lost);
    *offset = lost - 1;
    return lost != 0;
}
