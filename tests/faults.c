/* Preloaded into a process: from the N-th write below a folder on, its disk is full. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long fail_from = -1, count = 0;
static char folder[4096];

void faults_arm(long n, const char *below) { fail_from = n; count = 0; strncpy(folder, below, sizeof folder - 1); }
long faults_count(void) { return count; }

static int full(int fd) {
    char link[64], path[4096];
    if (fail_from < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (__sync_add_and_fetch(&count, 1) < fail_from || fail_from == 0) return 0;
    errno = ENOSPC;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t write(int fd, const void *b, size_t n) { return full(fd) ? -1 : REAL(write)(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return full(fd) ? -1 : REAL(pwrite)(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return full(fd) ? -1 : REAL(pwrite64)(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { return full(fd) ? -1 : REAL(writev)(fd, v, n); }
int fsync(int fd) { return full(fd) ? -1 : REAL(fsync)(fd); }
int posix_fallocate(int fd, off_t o, off_t n) { return full(fd) ? ENOSPC : REAL(posix_fallocate)(fd, o, n); }
int posix_fallocate64(int fd, off64_t o, off64_t n) { return full(fd) ? ENOSPC : REAL(posix_fallocate64)(fd, o, n); }
