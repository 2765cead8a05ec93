/*
 * A witness between a program and its disk.
 *
 * Preloaded (LD_PRELOAD) by tests/durability into the broker, it stands in for the functions of the C library that change files.
 * For everything below one directory it does what was asked, by the system call itself, and writes down what was done, in order
 * and with the bytes, into a log outside of that directory. From the log the test builds what a disk may hold after a power cut
 * at any operation (tests/durability/replay.rs). It can also be that power cut, and a disk that is full, broken or read-only.
 *
 * Environment:
 *   SUNDEW_SHIM_DIRECTORY  the directory, absolute, without symbolic links; without it the shim does nothing
 *   SUNDEW_SHIM_LOG        the log; appended to
 *   SUNDEW_SHIM_CUT        before this operation (the first is 1) the process is ended by SIGKILL
 *   SUNDEW_SHIM_CUT_KIND   with it, the cut comes after so many operations of this kind (enum kind),
 *   SUNDEW_SHIM_CUT_MORE   and so many more of any kind
 *   SUNDEW_SHIM_LIE        when set, fsync and fdatasync do nothing and report success
 *   SUNDEW_SHIM_CONTROL    a file of 8 bytes, two little-endian numbers: which fault (below), and how often; 0 is for ever
 *
 * Operations are under one lock: their order in the log is the order in which they happened. An operation is written down after
 * it was done and before its caller knows, so that nothing that followed from it can be missing from the log.
 *
 * The log is records: a header (struct record), two names, the bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    CREATE = 1,
    WRITE = 2,
    TRUNCATE = 3,
    SYNC = 4,
    SYNC_DIRECTORY = 5,
    RENAME = 6,
    UNLINK = 7,
    LINK = 8,
    MKDIR = 9,
    RMDIR = 10,
    SYNC_FAILED = 11,
    SYNC_SWALLOWED = 12,
    UNSUPPORTED = 13,
};

enum fault {
    NO_FAULT = 0,
    FULL = 1,          /* ENOSPC for whatever needs room */
    WRITE_FAILS = 2,   /* EIO */
    SYNC_FAILS = 3,    /* EIO; what was written since the last sync is lost */
    READ_ONLY = 4,     /* EROFS for every change */
    SHORT_WRITES = 5,  /* half of a write, then ENOSPC */
    SLOW_SYNCS = 6,    /* each takes a fifth of a second */
};

struct record {
    uint32_t magic;
    uint32_t kind;
    uint64_t number;
    uint64_t inode;
    uint64_t offset;
    uint64_t length; /* of the bytes that follow the names; of TRUNCATE the new length of the file, and none follow */
    uint32_t name_length;
    uint32_t other_length;
};

#define MAGIC 0x6d696873u
#define DESCRIPTORS 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[PATH_MAX];
static size_t directory_length;
static int log_descriptor = -1;
static uint64_t operations, operations_of_kind, cut, more;
static uint32_t cut_kind;
static int is_lying;
static volatile uint32_t *control;

/* What the descriptors are that lie below the directory. */
static struct {
    volatile char is_tracked;
    char is_directory;
    char is_synced; /* O_SYNC, O_DSYNC */
    uint64_t inode;
} descriptors[DESCRIPTORS];

__attribute__((constructor)) static void begin(void) {
    const char *value = getenv("SUNDEW_SHIM_DIRECTORY");
    if (!value || strlen(value) >= sizeof directory)
        return;
    if ((value = getenv("SUNDEW_SHIM_CONTROL"))) {
        int descriptor = syscall(SYS_openat, AT_FDCWD, value, O_RDWR | O_CLOEXEC);
        control = (void *)syscall(SYS_mmap, 0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        if (descriptor < 0 || (void *)control == MAP_FAILED)
            abort();
        syscall(SYS_close, descriptor);
    }
    if ((value = getenv("SUNDEW_SHIM_LOG"))) {
        log_descriptor = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log_descriptor < 0)
            abort();
    }
    if ((value = getenv("SUNDEW_SHIM_CUT")))
        cut = strtoull(value, 0, 10);
    if ((value = getenv("SUNDEW_SHIM_CUT_KIND")))
        cut_kind = strtoul(value, 0, 10);
    if ((value = getenv("SUNDEW_SHIM_CUT_MORE")))
        more = strtoull(value, 0, 10);
    is_lying = getenv("SUNDEW_SHIM_LIE") != 0;
    strcpy(directory, getenv("SUNDEW_SHIM_DIRECTORY"));
    directory_length = strlen(directory);
}

static int is_below(const char *path) {
    return directory_length && !strncmp(path, directory, directory_length) &&
           (path[directory_length] == '/' || !path[directory_length]);
}

/* The path below the directory, without the leading slash. */
static const char *below(const char *path) {
    path += directory_length;
    return *path == '/' ? path + 1 : path;
}

static int path_of(int descriptor, char *into) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, into, PATH_MAX - 1);
    if (length < 0)
        return 0;
    into[length] = 0;
    return 1;
}

/* Makes a path absolute; false if it is nothing of ours. */
static int resolve(int at, const char *path, char *into) {
    int saved = errno, length;
    if (!directory_length || !path)
        return 0;
    if (*path == '/') {
        length = snprintf(into, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX];
        if (at == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(at, base)) {
            errno = saved;
            return 0;
        }
        length = snprintf(into, PATH_MAX, "%s/%s", base, !strncmp(path, "./", 2) ? path + 2 : path);
    }
    errno = saved;
    return length < PATH_MAX && is_below(into);
}

static int is_ours(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS && descriptors[descriptor].is_tracked;
}

/* Takes the lock; ends the process if its time has come. */
static void enter(void) {
    pthread_mutex_lock(&lock);
    if (cut && !cut_kind && operations + 1 >= cut) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
}

static void leave(void) {
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* Whether a fault is to happen now. */
static int fails(enum fault fault) {
    if (!control || control[0] != (uint32_t)fault)
        return 0;
    if (control[1] && !--control[1])
        control[0] = NO_FAULT;
    return 1;
}

static int refuse(int error) {
    leave();
    errno = error;
    return -1;
}

static void put(const void *bytes, size_t length) {
    const char *rest = bytes;
    while (length) {
        ssize_t done = syscall(SYS_write, log_descriptor, rest, length);
        if (done <= 0)
            abort();
        rest += done;
        length -= done;
    }
}

static void note(enum kind kind, uint64_t inode, const char *name, const char *other, uint64_t offset, const void *bytes,
                 uint64_t length) {
    int saved = errno;
    operations++;
    if (cut_kind && kind == cut_kind && ++operations_of_kind == cut) {
        cut_kind = 0;
        cut = operations + 1 + more;
    }
    if (log_descriptor >= 0) {
        struct record record = {MAGIC, kind, operations, inode, offset, length, name ? strlen(name) : 0, other ? strlen(other) : 0};
        size_t size = sizeof record + record.name_length + record.other_length;
        char head[sizeof record + 2 * PATH_MAX];
        memcpy(head, &record, sizeof record);
        memcpy(head + sizeof record, name ? name : "", record.name_length);
        memcpy(head + sizeof record + record.name_length, other ? other : "", record.other_length);
        put(head, size);
        if (bytes)
            put(bytes, length);
    }
    errno = saved;
}

/* ---- opening and closing ---- */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    struct stat status;
    if (!directory_length)
        return syscall(SYS_openat, at, path, flags, mode);
    int may_change = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    int is_named_ours = resolve(at, path, full);
    if (is_named_ours && may_change)
        enter();
    int is_new = is_named_ours && (flags & O_CREAT) && syscall(SYS_newfstatat, at, path, &status, AT_SYMLINK_NOFOLLOW) != 0;
    if (is_named_ours && may_change && fails(READ_ONLY))
        return refuse(EROFS);
    if (is_new && fails(FULL))
        return refuse(ENOSPC);
    int descriptor = syscall(SYS_openat, at, path, flags, mode);
    int saved = errno;
    if (descriptor >= 0 && descriptor < DESCRIPTORS && is_named_ours && !fstat(descriptor, &status)) {
        descriptors[descriptor].inode = status.st_ino;
        descriptors[descriptor].is_directory = S_ISDIR(status.st_mode);
        descriptors[descriptor].is_synced = !!(flags & O_DSYNC);
        descriptors[descriptor].is_tracked = S_ISREG(status.st_mode) || S_ISDIR(status.st_mode);
        if (is_new)
            note(CREATE, status.st_ino, below(full), 0, 0, 0, 0);
        else if ((flags & O_TRUNC) && may_change)
            note(TRUNCATE, status.st_ino, below(full), 0, 0, 0, 0);
        if ((flags & O_TMPFILE) == O_TMPFILE || (flags & O_DIRECT))
            note(UNSUPPORTED, status.st_ino, "open with O_TMPFILE or O_DIRECT", 0, 0, 0, 0);
    }
    if (is_named_ours && may_change)
        leave();
    errno = saved;
    return descriptor;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments); \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return open_at(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return open_at(at, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int descriptor) {
    if (is_ours(descriptor))
        descriptors[descriptor].is_tracked = 0;
    return syscall(SYS_close, descriptor);
}

static int duplicated(int from, int to) {
    if (to >= 0 && to < DESCRIPTORS && is_ours(from))
        descriptors[to] = descriptors[from];
    else if (is_ours(to))
        descriptors[to].is_tracked = 0;
    return to;
}
int dup3(int from, int to, int flags);
int dup(int from) { return duplicated(from, syscall(SYS_dup, from)); }
int dup2(int from, int to) { return from == to ? to : dup3(from, to, 0); }
int dup3(int from, int to, int flags) { return duplicated(from, syscall(SYS_dup3, from, to, flags)); }
static int control_descriptor(int descriptor, int command, void *argument) {
    int result = syscall(SYS_fcntl, descriptor, command, argument);
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0)
        return duplicated(descriptor, result);
    return result;
}
int fcntl(int descriptor, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control_descriptor(descriptor, command, argument);
}
int fcntl64(int descriptor, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control_descriptor(descriptor, command, argument);
}

/* ---- writing ---- */

/* Under the lock: notes what a write has put where, by reading it back. */
static void note_written(int descriptor, uint64_t offset, uint64_t length) {
    int saved = errno;
    char link[64];
    char *bytes = (char *)syscall(SYS_mmap, 0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        abort();
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor); /* the descriptor itself may be for writing only */
    int reading = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    uint64_t done = 0;
    while (done < length) {
        ssize_t got = syscall(SYS_pread64, reading, bytes + done, length - done, offset + done);
        if (got <= 0)
            abort();
        done += got;
    }
    syscall(SYS_close, reading);
    note(WRITE, descriptors[descriptor].inode, 0, 0, offset, bytes, length);
    syscall(SYS_munmap, bytes, length);
    if (descriptors[descriptor].is_synced)
        note(SYNC, descriptors[descriptor].inode, 0, 0, 0, 0, 0);
    errno = saved;
}

/* Writes pieces at an offset, or at -1 where the descriptor stands. */
static ssize_t write_pieces(int descriptor, const struct iovec *pieces, int count, int64_t at) {
    if (!is_ours(descriptor))
        return at < 0 ? syscall(SYS_writev, descriptor, pieces, count) : syscall(SYS_pwritev, descriptor, pieces, count, at, 0);
    struct iovec half;
    struct stat status;
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    if (fails(FULL))
        return refuse(ENOSPC);
    if (fails(WRITE_FAILS))
        return refuse(EIO);
    if (control && control[0] == SHORT_WRITES) {
        if (pieces[0].iov_len < 2)
            return refuse(ENOSPC);
        half = (struct iovec){pieces[0].iov_base, pieces[0].iov_len / 2};
        pieces = &half;
        count = 1;
        control[0] = FULL;
    }
    int64_t from = at;
    if (at < 0) {
        int flags = syscall(SYS_fcntl, descriptor, F_GETFL);
        from = (flags & O_APPEND) && !fstat(descriptor, &status) ? status.st_size : syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
    }
    ssize_t done =
        at < 0 ? syscall(SYS_writev, descriptor, pieces, count) : syscall(SYS_pwritev, descriptor, pieces, count, at, 0);
    if (done > 0)
        note_written(descriptor, from, done);
    leave();
    return done;
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    if (!is_ours(descriptor))
        return syscall(SYS_write, descriptor, bytes, length);
    struct iovec piece = {(void *)bytes, length};
    return write_pieces(descriptor, &piece, 1, -1);
}
ssize_t writev(int descriptor, const struct iovec *pieces, int count) { return write_pieces(descriptor, pieces, count, -1); }
ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t at) {
    struct iovec piece = {(void *)bytes, length};
    return write_pieces(descriptor, &piece, 1, at);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t at) { return pwrite(descriptor, bytes, length, at); }
ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t at) {
    return write_pieces(descriptor, pieces, count, at);
}
ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off64_t at) {
    return write_pieces(descriptor, pieces, count, at);
}

static int truncate_to(int descriptor, off_t length) {
    if (!is_ours(descriptor))
        return syscall(SYS_ftruncate, descriptor, length);
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    int result = syscall(SYS_ftruncate, descriptor, length);
    if (!result)
        note(TRUNCATE, descriptors[descriptor].inode, 0, 0, 0, 0, length);
    leave();
    return result;
}
int ftruncate(int descriptor, off_t length) { return truncate_to(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return truncate_to(descriptor, length); }
int truncate(const char *path, off_t length) {
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    int result = descriptor < 0 ? -1 : ftruncate(descriptor, length), saved = errno;
    if (descriptor >= 0)
        close(descriptor);
    errno = saved;
    return result;
}
int truncate64(const char *path, off64_t length) { return truncate(path, length); }

/* Reserves room. Where that makes the file longer it is as good as a truncation to more; other modes are not known here. */
static int allocate(int descriptor, int mode, off_t offset, off_t length) {
    struct stat before, after;
    if (!is_ours(descriptor))
        return syscall(SYS_fallocate, descriptor, mode, offset, length);
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    if (fails(FULL))
        return refuse(ENOSPC);
    fstat(descriptor, &before);
    int result = syscall(SYS_fallocate, descriptor, mode, offset, length);
    fstat(descriptor, &after);
    if (!result && (mode & ~1))
        note(UNSUPPORTED, after.st_ino, "fallocate", 0, 0, 0, 0);
    else if (!result && after.st_size != before.st_size)
        note(TRUNCATE, after.st_ino, 0, 0, 0, 0, after.st_size);
    leave();
    return result;
}
int fallocate(int descriptor, int mode, off_t offset, off_t length) { return allocate(descriptor, mode, offset, length); }
int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) { return allocate(descriptor, mode, offset, length); }
int posix_fallocate(int descriptor, off_t offset, off_t length) { return allocate(descriptor, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int descriptor, off64_t offset, off64_t length) { return posix_fallocate(descriptor, offset, length); }

/* Not offered for files below the directory: whoever asks falls back to reading and writing. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
    if (is_ours(to)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    if (is_ours(to)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_sendfile, to, from, at, length);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) { return sendfile(to, from, at, length); }

static void *map(void *address, size_t length, int protection, int flags, int descriptor, off_t at) {
    if (is_ours(descriptor) && (flags & MAP_SHARED) && (protection & PROT_WRITE)) {
        enter();
        note(UNSUPPORTED, descriptors[descriptor].inode, "a shared mapping for writing", 0, 0, 0, 0);
        leave();
    }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, descriptor, at);
}
void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t at) {
    return map(address, length, protection, flags, descriptor, at);
}
void *mmap64(void *address, size_t length, int protection, int flags, int descriptor, off64_t at) {
    return map(address, length, protection, flags, descriptor, at);
}

/* ---- what makes it last ---- */

static int synchronize(int descriptor, long call) {
    if (!is_ours(descriptor))
        return syscall(call, descriptor);
    char full[PATH_MAX];
    uint64_t inode = descriptors[descriptor].inode;
    if (control && control[0] == SLOW_SYNCS)
        usleep(200 * 1000); /* others go on meanwhile */
    enter();
    if (is_lying) {
        note(SYNC_SWALLOWED, inode, 0, 0, 0, 0, 0);
        leave();
        return 0;
    }
    if (fails(SYNC_FAILS)) {
        note(SYNC_FAILED, inode, 0, 0, 0, 0, 0);
        return refuse(EIO);
    }
    int result = syscall(call, descriptor);
    if (result)
        note(SYNC_FAILED, inode, 0, 0, 0, 0, 0);
    else if (!descriptors[descriptor].is_directory)
        note(SYNC, inode, 0, 0, 0, 0, 0);
    else if (path_of(descriptor, full))
        note(SYNC_DIRECTORY, inode, below(full), 0, 0, 0, 0);
    leave();
    return result;
}
int fsync(int descriptor) { return synchronize(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return synchronize(descriptor, SYS_fdatasync); }

/* ---- names ---- */

static int rename_at(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    struct stat status;
    int from_ours = resolve(from_at, from, full_from), to_ours = resolve(to_at, to, full_to);
    if (!from_ours && !to_ours)
        return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!result && from_ours && to_ours && !(flags & ~1u) && !stat(full_to, &status))
        note(RENAME, status.st_ino, below(full_from), below(full_to), 0, 0, 0);
    else if (!result)
        note(UNSUPPORTED, 0, "a rename into or out of the directory", 0, 0, 0, 0);
    leave();
    return result;
}
int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return rename_at(from_at, from, to_at, to, 0); }
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    return rename_at(from_at, from, to_at, to, flags);
}

static int unlink_at(int at, const char *path, int flags) {
    char full[PATH_MAX];
    if (!resolve(at, path, full))
        return syscall(SYS_unlinkat, at, path, flags);
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (!result)
        note(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, below(full), 0, 0, 0, 0);
    leave();
    return result;
}
int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlink_at(at, path, flags); }
int rmdir(const char *path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }

static int link_at(int from_at, const char *from, int to_at, const char *to, int flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    struct stat status;
    int from_ours = resolve(from_at, from, full_from);
    if (!resolve(to_at, to, full_to))
        return syscall(SYS_linkat, from_at, from, to_at, to, flags);
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    int result = syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (!result && from_ours && !stat(full_to, &status))
        note(LINK, status.st_ino, below(full_from), below(full_to), 0, 0, 0);
    else if (!result)
        note(UNSUPPORTED, 0, "a link to a file outside", 0, 0, 0, 0);
    leave();
    return result;
}
int link(const char *from, const char *to) { return link_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    return link_at(from_at, from, to_at, to, flags);
}

static int mkdir_at(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    struct stat status;
    if (!resolve(at, path, full))
        return syscall(SYS_mkdirat, at, path, mode);
    enter();
    if (fails(READ_ONLY))
        return refuse(EROFS);
    if (fails(FULL))
        return refuse(ENOSPC);
    int result = syscall(SYS_mkdirat, at, path, mode);
    if (!result && !stat(full, &status) && *below(full))
        note(MKDIR, status.st_ino, below(full), 0, 0, 0, 0);
    leave();
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdir_at(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return mkdir_at(at, path, mode); }

int symlinkat(const char *target, int at, const char *path) {
    char full[PATH_MAX];
    int result = syscall(SYS_symlinkat, target, at, path);
    if (!result && resolve(at, path, full)) {
        enter();
        note(UNSUPPORTED, 0, "a symbolic link", 0, 0, 0, 0);
        leave();
    }
    return result;
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
