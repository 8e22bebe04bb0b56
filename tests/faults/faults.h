/* Faults on demand: the n-th allocation or call of the system that our own objects make fails, is short or is interrupted.
 * For programs linked with the flags of add_fault_test (tests/CMakeLists.txt): the linker has our calls of these
 * functions come here (--wrap), with and without sanitizers; jansson's come through src/cli/json_memory.c. */
#ifndef SUPPORT_FAULTS_H
#define SUPPORT_FAULTS_H

enum fault {
    FAULT_ALLOCATION,
    FAULT_READ,  /* read, pread, fread, getdelim and their kin */
    FAULT_WRITE, /* write, and fwrite and fclose */
    FAULT_MAP,
    FAULT_SYNC, /* fsync, fdatasync */
    FAULT_RENAME,
    FAULT_OPEN,   /* open, fopen, opendir, mkdir and their kin */
    FAULT_STATUS, /* fstat, ftruncate, lseek, close */
    FAULT_THREAD, /* pthread_create */
    FAULT_KINDS
};

enum manner {
    FAULT_FAILS,       /* as where there is no memory, or with EIO */
    FAULT_SHORT,       /* half of the bytes, at least one; reads and writes alone */
    FAULT_INTERRUPTED, /* EINTR, and then as usual; reads and writes alone */
    FAULT_FULL,        /* half of the bytes, and from then on none: a full disk; writes alone */
};

/* From now on the n-th call of the kind (from 1; 0: none) is disturbed; counting begins anew. */
void fault_plan(enum fault kind, enum manner manner, long n);

/* Calls of that kind since then. */
long fault_count(enum fault kind);

#endif
