/* A disk that is full from the n-th write on, for one process: LD_PRELOAD. Files below one folder alone are meant.
   A write is whatever may need room: write, pwrite, sendfile, fsync, a new name (open, mkdir, rename, link). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[4096];
static long first, seen, failed, elsewhere;
static char what[4200];

/* From the n-th write on; 0: never. */
void full_from(long n, const char *below) { first = n; seen = failed = 0; what[0] = 0; snprintf(folder, sizeof folder, "%s", below); }
void full_no_more(void) { first = 0; }
/* What follows is done by another process, on a disk with room. */
void full_elsewhere(int is_so) { elsewhere = is_so; }
long full_seen(void) { return seen; }
long full_failed(void) { return failed; }
const char *full_what(void) { return what; }

static int is_full(const char *call, const char *path) {
    if (!folder[0] || elsewhere || !path || strncmp(path, folder, strlen(folder))) return 0;
    seen++;
    if (!first || seen < first) return 0;
    if (!failed++) snprintf(what, sizeof what, "%s %s", call, path + strlen(folder));
    errno = ENOSPC;
    return 1;
}

static int is_full_fd(const char *call, int fd) {
    char link[64], path[4096];
    if (!folder[0]) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = before;
    if (n < 0) return 0;
    path[n] = 0;
    return is_full(call, path);
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *p, size_t n) { REAL(ssize_t, write, int, const void *, size_t); return is_full_fd("write", fd) ? -1 : real(fd, p, n); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) { REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t); return is_full_fd("pwrite", fd) ? -1 : real(fd, p, n, at); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { REAL(ssize_t, pwrite, int, const void *, size_t, off_t); return is_full_fd("pwrite", fd) ? -1 : real(fd, p, n, at); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) { REAL(ssize_t, sendfile64, int, int, off64_t *, size_t); return is_full_fd("sendfile", to) ? -1 : real(to, from, at, n); }
int fsync(int fd) { REAL(int, fsync, int); return is_full_fd("fsync", fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(int, fdatasync, int); return is_full_fd("fdatasync", fd) ? -1 : real(fd); }
int mkdir(const char *path, mode_t mode) { REAL(int, mkdir, const char *, mode_t); return is_full("mkdir", path) ? -1 : real(path, mode); }
int rename(const char *from, const char *to) { REAL(int, rename, const char *, const char *); return is_full("rename", to) ? -1 : real(from, to); }
int link(const char *from, const char *to) { REAL(int, link, const char *, const char *); return is_full("link", to) ? -1 : real(from, to); }

#define OPEN(name)                                                                   \
    int name(const char *path, int flags, ...) {                                     \
        REAL(int, name, const char *, int, ...);                                     \
        mode_t mode = 0;                                                             \
        if (flags & O_CREAT) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
        if ((flags & O_CREAT) && access(path, F_OK) && is_full("open", path)) return -1; \
        return real(path, flags, mode);                                              \
    }
OPEN(open)
OPEN(open64)
