/* Watches what a process does to the files of one folder, and makes that folder's disk slow or failing. LD_PRELOAD.
 *
 * METERPOST_DISK_FOLDER    only files below this absolute path are watched
 * METERPOST_DISK_RECORD    every change is appended here, with its data, in the order in which it happened
 * METERPOST_DISK_FSYNCS    one byte is appended here for each fsync or fdatasync
 * METERPOST_DISK_FSYNC_US  each fsync or fdatasync takes so much longer
 * METERPOST_DISK_FAIL      "ERRNO FIRST COUNT": changes number FIRST to FIRST + COUNT - 1 fail, ENOSPC spares fsyncs
 *
 * A record is, little endian: op (1 byte), fd (4), number (8), length (4), and so many bytes:
 *
 *   S                       a process begins; every descriptor of an earlier one is closed
 *   O fd flags path         open: flags 1 may create, 2 truncates, 4 directory
 *   C fd                    close
 *   W fd offset data        write
 *   T fd length             truncate, or extend with zeros
 *   F fd                    fsync, fdatasync; also of a directory
 *   R - length(from) from+to    rename
 *   U path, D path          unlink, rmdir
 *   M path                  mkdir
 *
 * Not seen: writes through a mapping (SQLite maps its -shm file only, which means nothing after a power loss), links,
 * copies inside the kernel, io_uring.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
/* In `watched`: the file in which a process writes down what it promised. It never fails. */
#define PROMISES 2
#define REAL(name) ((__typeof__(&name))real(#name))

static const char *folder;
static size_t folder_length;
static int record_fd = -1, count_fd = -1;
static long fsync_us, fail_first, fail_count, changes;
static int fail_errno;
static unsigned char watched[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void put(char op, int fd, uint64_t number, const void *first, size_t first_length, const void *second, size_t second_length) {
    if (record_fd < 0) return;
    unsigned char head[17];
    uint32_t length = (uint32_t)(first_length + second_length);
    int32_t fd32 = fd;
    head[0] = (unsigned char)op;
    memcpy(head + 1, &fd32, 4);
    memcpy(head + 5, &number, 8);
    memcpy(head + 13, &length, 4);
    struct iovec parts[3] = {{head, sizeof head}, {(void *)first, first_length}, {(void *)second, second_length}};
    ssize_t want = (ssize_t)(sizeof head + length);
    if (REAL(writev)(record_fd, parts, 3) != want) abort();
}

static int above(const char *name) {
    const char *path = getenv(name);
    if (!path) return -1;
    int fd = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    /* Out of the way of the process, which may count on small numbers. */
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 1000);
    if (high < 0) abort();
    REAL(close)(fd);
    return high;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("METERPOST_DISK_FOLDER");
    if (!path) return;
    const char *us = getenv("METERPOST_DISK_FSYNC_US");
    fsync_us = us ? atol(us) : 0;
    const char *fail = getenv("METERPOST_DISK_FAIL");
    if (fail && sscanf(fail, "%d %ld %ld", &fail_errno, &fail_first, &fail_count) != 3) abort();
    record_fd = above("METERPOST_DISK_RECORD");
    count_fd = above("METERPOST_DISK_FSYNCS");
    put('S', -1, 0, "", 0, "", 0);
    folder_length = strlen(path);
    folder = path;
}

static int inside(const char *path) {
    return folder && path && !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int is_watched(int fd) {
    return fd >= 0 && fd < FDS && watched[fd];
}

/* Whether this change is one that fails. Under the lock. */
static int fails(int fd, int is_sync) {
    if (!fail_errno || (is_sync && fail_errno == ENOSPC) || (fd >= 0 && watched[fd] == PROMISES)) return 0;
    changes++;
    if (changes < fail_first || changes >= fail_first + fail_count) return 0;
    errno = fail_errno;
    return 1;
}

static int opened(int fd, const char *path, int flags) {
    if (fd >= 0 && fd < FDS && inside(path)) {
        struct stat found;
        uint64_t told = (flags & O_CREAT ? 1 : 0) | (flags & O_TRUNC ? 2 : 0);
        if (!fstat(fd, &found) && S_ISDIR(found.st_mode)) told |= 4;
        const char *name = strrchr(path, '/');
        watched[fd] = name && !strcmp(name, "/acknowledged") ? PROMISES : 1;
        put('O', fd, told, path, strlen(path), "", 0);
    }
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        if (!inside(path)) return REAL(name)(path, flags, mode);                                                       \
        pthread_mutex_lock(&lock);                                                                                     \
        int fd = opened(REAL(name)(path, flags, mode), path, flags);                                                   \
        pthread_mutex_unlock(&lock);                                                                                   \
        return fd;                                                                                                     \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int at, const char *path, int flags, ...) {                                                               \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        if (!inside(path)) return REAL(name)(at, path, flags, mode);                                                   \
        pthread_mutex_lock(&lock);                                                                                     \
        int fd = opened(REAL(name)(at, path, flags, mode), path, flags);                                               \
        pthread_mutex_unlock(&lock);                                                                                   \
        return fd;                                                                                                     \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    if (!is_watched(fd)) return REAL(close)(fd);
    pthread_mutex_lock(&lock);
    watched[fd] = 0;
    put('C', fd, 0, "", 0, "", 0);
    int result = REAL(close)(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

/* `result` and errno are those of the real call. */
static ssize_t wrote(int fd, off64_t offset, const void *data, ssize_t result) {
    if (result > 0) put('W', fd, (uint64_t)offset, data, (size_t)result, "", 0);
    return result;
}

ssize_t write(int fd, const void *data, size_t length) {
    if (!is_watched(fd)) return REAL(write)(fd, data, length);
    pthread_mutex_lock(&lock);
    ssize_t result = fails(fd, 0) ? -1 : REAL(write)(fd, data, length);
    /* Behind the write, so that O_APPEND is right too. */
    if (result > 0) wrote(fd, lseek64(fd, 0, SEEK_CUR) - result, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

#define PWRITE(name, offset_type)                                                                                      \
    ssize_t name(int fd, const void *data, size_t length, offset_type offset) {                                        \
        if (!is_watched(fd)) return REAL(name)(fd, data, length, offset);                                              \
        pthread_mutex_lock(&lock);                                                                                     \
        ssize_t result = fails(fd, 0) ? -1 : wrote(fd, offset, data, REAL(name)(fd, data, length, offset));                \
        pthread_mutex_unlock(&lock);                                                                                   \
        return result;                                                                                                 \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* Vectors go part by part: a short answer is allowed, and each part is seen. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_watched(fd)) return REAL(writev)(fd, parts, count);
    for (int part = 0; part < count; part++)
        if (parts[part].iov_len) return write(fd, parts[part].iov_base, parts[part].iov_len);
    return 0;
}

#define PWRITEV(name, one, offset_type)                                                                                \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset) {                                   \
        if (!is_watched(fd)) return REAL(name)(fd, parts, count, offset);                                              \
        for (int part = 0; part < count; part++)                                                                       \
            if (parts[part].iov_len) return one(fd, parts[part].iov_base, parts[part].iov_len, offset);                \
        return 0;                                                                                                      \
    }
PWRITEV(pwritev, pwrite, off_t)
PWRITEV(pwritev64, pwrite64, off64_t)

#define TRUNCATE(name, offset_type)                                                                                    \
    int name(int fd, offset_type length) {                                                                             \
        if (!is_watched(fd)) return REAL(name)(fd, length);                                                            \
        pthread_mutex_lock(&lock);                                                                                     \
        int result = fails(fd, 0) ? -1 : REAL(name)(fd, length);                                                           \
        if (!result) put('T', fd, (uint64_t)length, "", 0, "", 0);                                                     \
        pthread_mutex_unlock(&lock);                                                                                   \
        return result;                                                                                                 \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* Extends only: SQLite reserves nothing in the middle of a file. */
static int reserved(int fd, off64_t offset, off64_t length) {
    struct stat64 before, after;
    pthread_mutex_lock(&lock);
    int result = fails(fd, 0) ? errno : fstat64(fd, &before) ? errno : REAL(posix_fallocate64)(fd, offset, length);
    if (!result && !fstat64(fd, &after) && after.st_size != before.st_size)
        put('T', fd, (uint64_t)after.st_size, "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    return is_watched(fd) ? reserved(fd, offset, length) : REAL(posix_fallocate)(fd, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    return is_watched(fd) ? reserved(fd, offset, length) : REAL(posix_fallocate64)(fd, offset, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    if (!is_watched(fd)) return REAL(fallocate)(fd, mode, offset, length);
    errno = EOPNOTSUPP;
    return -1;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    if (!is_watched(fd)) return REAL(fallocate64)(fd, mode, offset, length);
    errno = EOPNOTSUPP;
    return -1;
}

#define SYNC(name)                                                                                                     \
    int name(int fd) {                                                                                                 \
        if (!is_watched(fd)) return REAL(name)(fd);                                                                    \
        if (fsync_us > 0) usleep((useconds_t)fsync_us);                                                                \
        pthread_mutex_lock(&lock);                                                                                     \
        int result = fails(fd, 1) ? -1 : REAL(name)(fd);                                                                   \
        if (count_fd >= 0 && REAL(write)(count_fd, "f", 1) != 1) abort();                                              \
        if (!result) put('F', fd, 0, "", 0, "", 0);                                                                    \
        pthread_mutex_unlock(&lock);                                                                                   \
        return result;                                                                                                 \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    if (!inside(from) && !inside(to)) return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = fails(-1, 0) ? -1 : REAL(rename)(from, to);
    if (!result) put('R', -1, strlen(from), from, strlen(from), to, strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

#define NAME(name, op, call, ...)                                                                                      \
    int name(__VA_ARGS__) {                                                                                            \
        if (!inside(path)) return call;                                                                                \
        pthread_mutex_lock(&lock);                                                                                     \
        int result = fails(-1, 0) ? -1 : call;                                                                             \
        if (!result) put(op, -1, 0, path, strlen(path), "", 0);                                                        \
        pthread_mutex_unlock(&lock);                                                                                   \
        return result;                                                                                                 \
    }
NAME(unlink, 'U', REAL(unlink)(path), const char *path)
NAME(rmdir, 'D', REAL(rmdir)(path), const char *path)
NAME(mkdir, 'M', REAL(mkdir)(path, mode), const char *path, mode_t mode)
