/* Preloaded into a process: its disks have no locks, and say so with the error number in NO_LOCKS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>

static int refuse(void) { errno = atoi(getenv("NO_LOCKS")); return -1; }
int flock(int fd, int operation) { (void)fd; (void)operation; return refuse(); }
int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (command == F_SETLK || command == F_SETLKW || command == F_GETLK) return refuse();
    return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64"))(fd, command, argument);
}
